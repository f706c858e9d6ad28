"""`report.html`: everything a run left behind, on one page that loads nothing from anywhere.

Each section is plain data made by a module beside this one; `page.html` lays it out, `page.css` and `page.js` are
inlined, and so is plotly's script. All text is escaped by the template: samples are model output, shown, never run.
"""

import json
import os
from datetime import datetime
from pathlib import Path

from ..errors import RequestError, WorkError
from ..progress import Progress
from . import costs, curves, datacard, maps, summary, text, tokenizer
from .figures import moment
from .inputs import Missing, or_empty, read_json, read_lines, read_recipe, section

HERE = Path(__file__).parent


def write_report(run: Path, progress: Progress = Progress()) -> Path:
    """Write `run/report.html` and return its path.

    Sections whose inputs are missing say so. Raises RequestError when `run` is no run directory, WorkError when the
    page cannot be written; an older page then stays as it was.
    """
    run = Path(run)
    if not run.is_dir():
        raise RequestError(f"{run}: no such run directory")
    if not any((run / name).exists() for name in ("recipe.yaml", "metrics.jsonl", "result.json", "plan.json")):
        raise RequestError(f"{run}: not a run directory: it has no recipe.yaml, metrics.jsonl, plan.json or result.json")
    with progress.task("report", total=4, unit="parts") as task:
        page = render(run, task)
    path, aside = run / "report.html", run / f".report.html.{os.getpid()}"
    try:
        aside.write_text(page, encoding="utf-8", errors="replace")
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise WorkError(f"{path}: cannot be written: {error.strerror or error}") from None
    return path


def render(run: Path, task) -> str:
    """The page as text."""
    recipe = section(read_recipe, run / "recipe.yaml")
    card = or_empty(read_json, run / "data" / "data.json")
    plan, result = or_empty(read_json, run / "plan.json"), or_empty(read_json, run / "result.json")
    manifest = or_empty(read_json, run / "manifest.json")

    sections = {
        "training": section(lambda: curves.training(read_lines(run / "metrics.jsonl"))),
        "samples": section(text.samples, run, summary.objective_of(recipe) == "causal"),
        "test": section(text.test, run),
        "data": section(datacard.data, run),
        "cost": section(costs.costs, run),
    }
    task.advance()
    sections["tokenizer"], sections["embeddings"] = _tokens(run, recipe, card, sections["test"], task)
    if "missing" not in sections["test"]:
        sections["test"]["facts"] = summary.test_facts(sections["test"]["scores"])
    contents = [(name, title) for name, title in (
        ("training", "Training"), ("samples", "Samples"), ("test", "Test"), ("data", "Data"),
        ("tokenizer", "Tokenizer"), ("cost", "Plan"), ("embeddings", "Embeddings"), ("recipe", "Recipe"),
    ) if "missing" not in sections.get(name, {})]
    values = {
        "name": str(recipe.get("name") or run.resolve().name), "lede": summary.lede(recipe, plan, card, result),
        "headline": summary.headline(sections, result), "contents": contents + [("next", "Next")],
        "recipe": recipe, "environment": summary.environment(manifest), "next": summary.next_steps(run, recipe, result),
        "version": manifest.get("code_version"), "written": moment(datetime.now().astimezone()), **sections,
    }
    return _fill(values, _figures(sections))


def _tokens(run, recipe, card, test, task) -> tuple[dict, dict]:
    """The two sections that need the tokenizer, which is read once."""
    try:
        own = tokenizer.load(run)
    except Missing as reason:
        return {"missing": str(reason)}, {"missing": str(reason)}
    size, tokens = datacard.training_size(card)
    per_token = size / tokens if tokens > 0 else None
    examples = datacard.example_texts(card) + [c["text"] for c in test.get("completions", [])]
    example = max(examples[:3], key=len) if examples else ""
    statistics = section(tokenizer.statistics, own, example, per_token)
    if "missing" not in statistics:
        statistics["facts"] = [
            ("Kind", {"bpe": "byte-level BPE"}.get(statistics["kind"], statistics["kind"])),
            ("Vocabulary", f"{statistics['vocab_size']:,}"),
            ("Bytes per token", f"{statistics['bytes_per_token']:.2f}" if statistics["bytes_per_token"] else "—"),
            ("Special tokens", _listed(statistics["specials"])),
        ]
    task.advance()
    code = any(mark in json.dumps(card.get("sources", "")) for mark in ("python:", ".py")) or "check: python" in str(
        recipe.get("text"))
    drawn = section(maps.maps, run, own, code)
    task.advance()
    return statistics, drawn


def _listed(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "none"


def _figures(sections: dict) -> list[dict]:
    """Every figure of the page, in the form that page.js draws."""
    training, tokens, embeddings = sections["training"], sections["tokenizer"], sections["embeddings"]
    figures = [training.get("loss"), *training.get("small", []), tokens.get("histogram")]
    figures += embeddings.get("tsne", []) + embeddings.get("pca", [])
    return [{key: figure[key] for key in ("id", "data", "layout")} for figure in figures if figure]


def _fill(values: dict, figures: list[dict]) -> str:
    """The template with values escaped and the scripts inlined as they are."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    pages = Environment(loader=FileSystemLoader(HERE), autoescape=True)
    data = json.dumps(figures, separators=(",", ":"), allow_nan=False)
    for character in "<>&":  # inside a script element nothing else may end the element
        data = data.replace(character, f"\\u{ord(character):04x}")
    return pages.get_template("page.html").render(
        **values, figures=Markup(data), plotly=Markup(get_plotlyjs()),
        style=Markup(pages.get_template("page.css").render()), script=Markup((HERE / "page.js").read_text("utf-8")),
    )

