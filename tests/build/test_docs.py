"""Every command that the README and the pages of docs/ show works as it is written.

A small run stands where `make demo` leaves its own. Commands that train or prepare get a smaller step count added and
otherwise run as shown; docs/plan.md's are run by tests/plan.
"""

import gzip
import io
import re
import shlex
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from llmwright import cli

from .test_build import TREE, recipe

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = re.compile(r"^ {4}(?:\.venv/bin/)?(llmwright .+)$|`(llmwright [^`]+)`", re.M)
NOT_RUN = {"design.md": "the plan of the whole project, ahead of the code", "plan.md": "run by tests/plan", "pull.md": "needs the hub",
           "embed.md": "run by tests/engine", "chat.md": "run by tests/cli"}
PAIRS = ["tokenizer.vocab_size=400", "model.d_model=32"]  # the few pairs of the test support no more
HIDDEN = ["data.corpus=notes", "tokenizer.vocab_size=1024", "model.d_model=32"]  # masked and span: little text will do
BRIEF = ["--streams", "1,2", "--rounds", "1", "--answer-tokens", "8", "--long-tokens", "40", "--arrivals", "2"]
SMALLER = ["train.steps=2", "eval.completions=0", "eval.check=null", "eval.tokens=500", "train.tensorboard=false", "train.batch=2"]


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        if page.name not in NOT_RUN:
            for match in SHOWN.finditer(page.read_text(encoding="utf-8")):
                found.append((page.name, match[1] or match[2]))
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder like a user's: recipes/, runs/demo, some notes."""
    from llmwright.build.stages import build

    place = tmp_path_factory.mktemp("docs")
    (place / "recipes").symlink_to(ROOT / "recipes")
    build(recipe(place / "runs" / "demo", "train.steps=3", "eval.tokens=500", "train.prompts=[]"))
    notes = place / "notes"
    notes.mkdir()
    for name, text in topics.items():
        (notes / f"{name.lower()}.md").write_text(text, encoding="utf-8")
    (place / "notes.txt").write_text("Notes on a model of our own. " * 20)
    (place / "prompts.txt").write_text("import os\nclass Node:\n")
    captions = place / "data" / "multi30k"
    captions.mkdir(parents=True)
    words = [word for text in topics.values() for word in text.split()]
    for i, name in enumerate(("train", "val", "test_2016_flickr")):
        for language in ("de", "en"):
            lines = [" ".join(words[at : at + 9]) for at in range(9 * i, 9 * 3 * 60, 9 * 3)]
            with gzip.open(captions / f"{name}.{language}.gz", "wt", encoding="utf-8") as file:
                file.write("".join(f"{line} {language}\n" for line in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert cli.run(["build", "recipes/translate.yaml", "out=runs/translate", *SMALLER, *PAIRS]) == 0
        for name in ("masked", "span"):
            assert cli.run(["build", f"recipes/{name}.yaml", f"out=runs/{name}", *SMALLER, *HIDDEN]) == 0
    return place


def arguments(command: str, place: Path) -> list[str]:
    """The command line as shown, with the reader's own names filled in."""
    command = command.split("  #")[0].replace("$'\\n\\n'", "'\n\n'")
    for name, real in (
        ("~/notes", "notes"), ("FILE", "notes.txt"), ("CORPUS", "notes"), ("-o DIR", "-o data/dir"), ("RECIPE", "recipes/demo.yaml"),
        ("DATADIR", "runs/demo/data"), ("~/models/my-model", "runs/demo/model"), ("info tokenizer.json", "info runs/demo/model/tokenizer.json"),
        ("PATH", "runs/demo"), ("TOKENIZER", "runs/demo/model/tokenizer.json"), ("MODEL", "runs/demo"), ("PATH_TO/", ""),
    ):
        command = command.replace(name, real)
    words = shlex.split(command)[1:]
    if words[0] in ("build", "pretrain"):
        words += SMALLER + ([] if any(w.startswith("out=") for w in words) else [f"out=runs/{abs(hash(command))}"])
        words += PAIRS if "recipes/translate.yaml" in words else []
        words += HIDDEN if {"recipes/masked.yaml", "recipes/span.yaml"} & set(words) else []
    if words[0] == "bench":
        words += BRIEF
    return words


@pytest.mark.slow
@pytest.mark.parametrize("page, command", commands(), ids=lambda value: value[:60])
def test_a_shown_command_works(page, command, place, monkeypatch, capsys, request):
    monkeypatch.chdir(place)
    for name, fixture in (("smollm2-135m-instruct", "smollm2"), ("all-minilm-l6-v2", "minilm")):
        if name in command:
            request.getfixturevalue(fixture)  # brought once, or a reason to skip
    if command.startswith("llmwright serve") or "--url" in command:
        pytest.skip("serves until it is stopped; tests/serve does that")
    if len(command.split()) == 2 and "." not in command:
        pytest.skip("a mention, not a command to run")
    if command.startswith("llmwright pretrain") and "--data" not in command:
        assert cli.run(arguments("llmwright build recipes/demo.yaml out=runs/p", place)) == 0
        command += " out=runs/p"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Hello.\n")))  # what a user says to `chat`
    assert cli.run(arguments(command, place)) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.strip()


def test_the_pages_show_commands():
    """The pattern finds them: a test that found none would pass."""
    shown = commands()
    assert len(shown) > 20 and {c.split()[1] for _, c in shown} >= {"build", "pretrain", "prepare", "eval", "generate", "info"}


def prose(page: Path) -> str:
    """The page without its blocks of code, in which `a[i](b)` is no link."""
    return re.sub(r"^```.*?^```$|^    [^\n]*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def test_every_link_in_the_pages_leads_somewhere():
    found = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)#]+)\)", prose(page))]
    assert len(found) > 50
    for page, target in found:
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
