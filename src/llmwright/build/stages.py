"""`build`: prepare → plan → pretrain → eval → report, from one recipe, into one run directory.

A stage whose inputs did not change is skipped; an interrupted one goes on where it was. Inputs are told apart by
fingerprints: of the corpus's listing and the data section for the data, of the data and the model, training and seed
for the weights, of the weights and the eval section for the test result. A run whose inputs changed is never thrown
away silently: `fresh` does it.
"""

import hashlib
import json
import shutil
import time
from pathlib import Path

from ..data.prepare import prepare, up_to_date
from ..data.shards import DataDir
from ..errors import RequestError
from ..progress import Progress
from ..recipe import Recipe
from ..train.run import Run

LEFT_BY_A_BUILD = (
    "data", "checkpoints", "tensorboard", "last", "best", "model", "metrics.jsonl", "samples.jsonl", "manifest.json",
    "result.json", "plan.json", "eval.json", "report.html", "precision.json", "embeddings-start.safetensors",
)


def build(recipe: Recipe, *, fresh: bool = False, progress: Progress = Progress(), recipe_path: str = "recipe") -> dict:
    """Run every stage that is not up to date; returns what was built: directory, result, test figures, and the
    stages with their seconds (0 for those that were up to date)."""
    from .pretrain import check_shape

    path = recipe.directory
    check_shape(recipe)
    seconds: dict[str, float] = {}
    with Run(path) as run:
        if fresh:
            _remove(path)
        stages = (("data", _prepare), ("plan", _plan), ("training", _pretrain), ("test", _test), ("report", _report))
        for name, stage in stages:
            started = time.monotonic()
            done = stage(recipe, run, progress)
            seconds[name] = round(time.monotonic() - started, 2) if done else 0.0
            if not done:
                progress.say(f"{name}: up to date")
            elif (result := run.read_json("result.json")) and name != "report":
                run.write_json("result.json", {**result, "stages": result.get("stages", {}) | {n: s for n, s in seconds.items() if s}})
        result, test = run.read_json("result.json"), run.read_json("eval.json")
        plan = run.read_json("plan.json")
    if not any(seconds.values()):
        progress.say("all stages are up to date")
    return {
        "directory": str(path), "recipe": recipe_path, "seconds": seconds, "result": result, "test": test, "plan": plan,
    }


def _prepare(recipe: Recipe, run: Run, progress: Progress) -> bool:
    out = run.path / "data"
    if up_to_date(recipe.data, recipe.tokenizer, out, exclude=[run.path]):
        return False
    if run.steps():
        raise RequestError(
            f"{run.path}: the corpus, or the recipe's data or tokenizer section, changed since this run was trained; "
            "name another run with out=…, or add --fresh to build it anew"
        )
    prepare(recipe.data, recipe.tokenizer, out, seed=recipe.seed, progress=progress, exclude=[run.path])
    return True


def _plan(recipe: Recipe, run: Run, progress: Progress) -> bool:
    from ..plan.measure import plan_run
    from ..plan.show import brief
    from .pretrain import fingerprint, refuse_changes

    data = DataDir.open(run.path / "data")
    refuse_changes(run, recipe, data)
    inputs, known = _hash(fingerprint(recipe), data.fingerprint), run.read_json("plan.json") or {}
    if known.get("inputs") == inputs or (known and run.steps()):  # a plan is made before the first step
        return False
    plan = plan_run(recipe, data, progress)
    run.write_json("plan.json", {**plan, "inputs": inputs})
    progress.say(brief(plan))
    return True


def _pretrain(recipe: Recipe, run: Run, progress: Progress) -> bool:
    from ..train.loop import train
    from ..train.state import damage
    from .pretrain import begin, finish, make_job

    data = DataDir.open(run.path / "data")
    result = run.read_json("result.json") or {}
    if result.get("state") in ("finished", "early") and run.steps() and run.steps()[-1] == result.get("steps"):
        best = (run.path / "best").resolve()
        if (problem := damage(best)) is None:
            return False
        progress.say(f"checkpoint {best} is damaged ({problem})")
    job = make_job(recipe, data, run, progress)
    begin(run, recipe, job, data)
    finish(run, train(job))
    return True


def _test(recipe: Recipe, run: Run, progress: Progress) -> bool:
    from .test import measure

    inputs = _hash(_model_identity(run), recipe.eval.model_dump(mode="json"))
    if (run.read_json("eval.json") or {}).get("inputs") == inputs:
        return False
    run.write_json("eval.json", {**measure(recipe, run, progress), "inputs": inputs})
    return True


def _report(recipe: Recipe, run: Run, progress: Progress) -> bool:
    from ..report import write_report

    page = run.path / "report.html"
    inputs = [run.path / name for name in ("result.json", "eval.json", "plan.json", "samples.jsonl", "data/data.json")]
    if page.exists() and all(page.stat().st_mtime >= file.stat().st_mtime for file in inputs if file.exists()):
        return False
    write_report(run.path, progress)
    return True


def _model_identity(run: Run) -> str:
    """What tells one trained model from another: its checkpoint's checksums."""
    try:
        return (run.path / "best" / "checksums.json").read_text(encoding="utf-8")
    except OSError:
        raise RequestError(f"{run.path}: its best checkpoint is not there or damaged; --fresh builds it anew") from None


def _hash(*parts) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _remove(path: Path) -> None:
    for name in LEFT_BY_A_BUILD:
        target = path / name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
