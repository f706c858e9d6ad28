"""A recipe and a data directory as a `Job` for the one loop."""

import hashlib
import json
from pathlib import Path

import torch

from .. import __version__
from ..checkpoint.cache import resolve
from ..checkpoint.directory import load
from ..data.rows import RowLoader
from ..data.shards import DataDir
from ..engine.generate import generate
from ..engine.sampler import Sampling
from ..errors import RequestError
from ..evals.perplexity import evaluate_split
from ..families.shapes import shape
from ..model.config import ModelConfig
from ..model.build import new
from ..model.decoder import Decoder
from ..plan.flops import training_flops_per_token
from ..progress import Progress
from ..recipe import Model as RecipeModel
from ..recipe import Recipe
from ..tokens.load import load as load_tokenizer
from ..train.job import Job, Outcome
from ..train.loop import train
from ..train.machine import describe, pick_device
from ..train.objectives import OBJECTIVES
from ..train.run import Run, now


def make_model(recipe: Recipe, tokenizer) -> Decoder:
    """A new model of the recipe's shape, or the one that `model.start_from` names."""
    if recipe.model.start_from:
        return _start_from(recipe, tokenizer)
    specials = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    specials = {name: id for name, id in specials.items() if id is not None}
    return new(shape(recipe.model, tokenizer.vocab_size, specials), recipe.seed)


def _start_from(recipe: Recipe, tokenizer) -> Decoder:
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
        longest_context(recipe, shape(recipe.model, recipe.tokenizer.vocab_size))
    elif not resolve(recipe.model.start_from).is_dir():
        raise RequestError(f"model.start_from: {recipe.model.start_from}: no such model directory")


def longest_context(recipe: Recipe, config: ModelConfig) -> int:
    """The longest rows of a training: what validation and test use. Raises RequestError beyond the model's context."""
    train = recipe.train
    wanted = [train.context or min(recipe.model.context, config.context), *(c for _, c, _ in train.growth)]
    if max(wanted) > config.context:
        raise RequestError(f"train: rows of {max(wanted)} tokens are beyond the model's context, {config.context}")
    return max(wanted)


def mixture(recipe: Recipe) -> dict[str, float]:
    """The shares of the sources: the training's, or the sources' weights."""
    return recipe.train.mixture or {name: s.weight for name, s in recipe.data.sources().items() if s.weight}


def make_job(recipe: Recipe, data: DataDir, run: Run, progress: Progress) -> Job:
    settings = recipe.train
    data.verify(("train", "val"), progress)
    torch.manual_seed(recipe.seed)  # dropout
    tokenizer = load_tokenizer(data.tokenizer_path)
    model = make_model(recipe, tokenizer).to(pick_device(settings.device))
    longest = longest_context(recipe, model.config)
    context = settings.context or min(recipe.model.context, model.config.context)
    loader = RowLoader(
        data.split("train"), context, settings.batch, recipe.seed, rows=settings.rows, stride=settings.stride,
        mixture=mixture(recipe), curriculum=settings.curriculum,
    )
    for _, later, rows in settings.growth:  # what would fail later fails now
        loader.resize(later, rows)
    loader.resize(context, settings.batch)
    validation = data.split("val")

    def validate(model):
        result = evaluate_split(
            model, tokenizer, validation, context=longest, max_tokens=settings.eval_tokens,
            batch=max(1, 8192 // longest),
        )
        return {"val_loss": result["loss"], "val_bpb": result["bits_per_byte"]}

    def sample(model):
        sampling = Sampling(temperature=0.8, top_p=0.95, seed=recipe.seed)
        made = generate(model, tokenizer, settings.prompts, max_tokens=settings.sample_tokens, sampling=sampling)
        return [(g.prompt, g.text) for g in made]

    return Job(
        run=run, model=model, loader=loader, objective=OBJECTIVES["causal"], settings=settings, context=context,
        evaluate=validate, sample=sample if settings.prompts else None, tokenizer=tokenizer,
        fingerprint={"data": data.fingerprint, "recipe": fingerprint(recipe)},
        flops_per_token=lambda context: training_flops_per_token(model.config, context), progress=progress,
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
