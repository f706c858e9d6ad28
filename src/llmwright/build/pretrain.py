"""A recipe and a data directory as a `Job` for the one loop."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch

from .. import __version__
from ..checkpoint.cache import resolve
from ..checkpoint.directory import load
from ..data.shards import DataDir
from ..engine.sampler import Sampling
from ..errors import RequestError
from ..families.shapes import shape
from ..model.build import new
from ..model.transformer import Transformer
from ..progress import Progress
from ..recipe import Model as RecipeModel
from ..recipe import Recipe
from ..tokens.load import load as load_tokenizer
from ..train.job import Job, Outcome
from ..train.loop import train
from ..train.machine import describe, pick_device
from ..train.run import Run, now
from .tasks import TASKS, check_kind, longest_context, mixture


def make_model(recipe: Recipe, tokenizer) -> Transformer:
    """A new model of the recipe's shape, or the one that `model.start_from` names."""
    if recipe.model.start_from:
        return _start_from(recipe, tokenizer)
    specials = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    specials = {name: id for name, id in specials.items() if id is not None}
    return new(shape(recipe.model, tokenizer.vocab_size, specials), recipe.seed)


def _start_from(recipe: Recipe, tokenizer) -> Transformer:
    path, default = resolve(recipe.model.start_from), RecipeModel()
    for key in RecipeModel.model_fields:
        if key not in ("start_from", "context") and getattr(recipe.model, key) != getattr(default, key):
            raise RequestError(f"model.{key} does not go with model.start_from: the shape is that of {path}")
    model = load(path)
    if load_tokenizer(path).fingerprint != tokenizer.fingerprint:
        raise RequestError(
            f"model.start_from: {path} reads text with another tokenizer than the data was prepared with: "
            f"prepare the data with tokenizer.path={path}"
        )
    return model


def check_shape(recipe: Recipe) -> None:
    """Raise RequestError for an impossible model before any work is done for it."""
    if not recipe.model.start_from:
        config = shape(recipe.model, recipe.tokenizer.vocab_size)
        check_kind(recipe, config)
        longest_context(recipe, config)
    elif not resolve(recipe.model.start_from).is_dir():
        raise RequestError(f"model.start_from: {recipe.model.start_from}: no such model directory")


def make_job(recipe: Recipe, data: DataDir, run: Run, progress: Progress) -> Job:
    settings = recipe.train
    if settings.objective != "seq2seq" and data.card.get("documents_are") == "pairs":
        raise RequestError(f"{data.path}: holds pairs, which train.objective seq2seq learns from, not {settings.objective}")
    data.verify(("train", "val"), progress)
    torch.manual_seed(recipe.seed)  # dropout
    tokenizer = load_tokenizer(data.tokenizer_path)
    model = make_model(recipe, tokenizer).to(pick_device(settings.device))
    check_kind(recipe, model.config)
    task = TASKS[settings.objective](recipe, data, tokenizer, model)
    loader = task.batches()
    task.check_prompts([*settings.prompts, *recipe.eval.prompts])
    for note in task.notes():
        progress.say(note)
    objective = replace(task.objective, label_smoothing=settings.label_smoothing)

    def sample(model):
        sampling = Sampling(temperature=0.8, top_p=0.95, seed=recipe.seed)
        return task.show(model, settings.prompts, settings.sample_tokens, sampling)

    return Job(
        run=run, model=model, loader=loader, objective=objective, settings=settings, context=task.context,
        evaluate=task.validate, sample=sample if settings.prompts else None, tokenizer=tokenizer,
        fingerprint={"data": data.fingerprint, "recipe": fingerprint(recipe)}, flops_per_token=task.flops, progress=progress,
    )


def fingerprint(recipe: Recipe) -> str:
    """A hash of what decides the trained weights: how often a run is looked at or saved does not."""
    looking = {"eval_every", "eval_tokens", "sample_every", "prompts", "sample_tokens", "save_every", "save_minutes",
               "keep_last", "tensorboard", "max_bad_steps"}
    if recipe.train.patience:  # then evaluations decide when it ends
        looking -= {"eval_every", "eval_tokens"}
    parts = {"model": recipe.model.model_dump(mode="json"), "seed": recipe.seed, "mixture": mixture(recipe),
             "train": recipe.train.model_dump(mode="json", exclude=looking)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def pretrain(recipe: Recipe, data_directory: Path, progress: Progress = Progress()) -> Outcome:
    """Train the recipe's model on a data directory, into the recipe's run directory; goes on where it was."""
    data = DataDir.open(data_directory)
    with Run(recipe.directory) as run:
        refuse_changes(run, recipe, data)
        job = make_job(recipe, data, run, progress)
        begin(run, recipe, job, data)
        outcome = train(job)
        finish(run, outcome)
    return outcome


def refuse_changes(run: Run, recipe: Recipe, data: DataDir) -> None:
    """Raise unless the run, where it has trained already, was trained by this recipe on this data."""
    if not run.steps():
        return
    manifest = run.read_json("manifest.json") or {}
    now_and_then = {
        "the recipe's model, train or seed": (fingerprint(recipe), manifest.get("recipe_fingerprint")),
        "its data": (data.fingerprint, manifest.get("data_fingerprint")),
    }
    for what, (now_, then) in now_and_then.items():
        if then is not None and now_ != then:
            raise RequestError(
                f"{run.path}: {what} changed since this run was trained; name another run with out=…, or add --fresh to "
                "build it anew"
            )


def begin(run: Run, recipe: Recipe, job: Job, data: DataDir) -> None:
    """What a run says of itself before its first step."""
    from ..checkpoint.files import write_file

    write_file(run.path / "recipe.yaml", recipe.to_yaml())
    if run.steps():
        return
    run.write_json("manifest.json", {
        "code_version": __version__, "created": now(), "seeds": {"recipe": recipe.seed},
        "machine": describe(job.model.device), "data_fingerprint": data.fingerprint,
        "recipe_fingerprint": job.fingerprint["recipe"], "data": str(data.path),
    })
    from safetensors.torch import save_file

    table = job.model.embed.weight.detach().to("cpu", torch.float32)
    if table.nbytes <= 200_000_000:  # for the report's picture of the table before and after
        save_file({"embedding": table.contiguous()}, run.path / "embeddings-start.safetensors")


def finish(run: Run, outcome: Outcome) -> None:
    c = outcome.counters
    old = run.read_json("result.json") or {}
    run.write_json("result.json", {
        **old, "state": outcome.state, "steps": c.step, "tokens": c.tokens, "seconds": round(c.seconds, 2),
        "tokens_per_second": round(outcome.tokens_per_second, 1), "precision": outcome.precision,
        "peak_memory": max(outcome.peak_memory, old.get("peak_memory", 0)), "skipped_steps": c.skipped,
        "final": c.last_evaluation, "best": {"step": c.best_saved_step, "val_loss": c.best_saved_loss},
    })
