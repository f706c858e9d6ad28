"""What a plan is asked about: a recipe, a model directory, a published model by name, or bare numbers."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from ..checkpoint.cache import find, resolve
from ..errors import RequestError
from ..model.config import ModelConfig
from ..recipe import Recipe
from . import scaling
from .parameters import parameters
from .presets import PRESETS, preset, preset_key
from .shape import Shape, shape_of, typical
from .training import Training, from_recipe, training

# a vocabulary before its text was read: characters of one language, or every byte, and a few special tokens
ASSUMED_VOCABULARY = {"chars": 128, "bytes": 260}


@dataclass(frozen=True)
class Target:
    """A shape to plan for, the run that its recipe describes, and what was assumed of them.

    `config` and `recipe`: what the shape and the run came from, where a model can be built (and so measured)."""

    shape: Shape
    run: Training | None = None
    notes: tuple[str, ...] = ()
    config: ModelConfig | None = None
    recipe: Recipe | None = None


def read(target: str, overrides: list[str] = ()) -> Target:
    """Raises RequestError for a target that is none of recipe, model directory and preset."""
    path = Path(target).expanduser()
    if path.suffix in (".yaml", ".yml") and not path.is_dir():
        return _recipe(path, overrides)
    if overrides:
        raise RequestError(f"{overrides[0]}: only a recipe (a .yaml file) takes key=value; {target} is none")
    if not path.exists() and preset_key(target) not in PRESETS and (pulled := find(target)):
        path = pulled
    if path.is_dir():
        config = _model_directory(path)
        return Target(replace(shape_of(config), name=path.resolve().name), config=config)
    if path.suffix in (".gguf", ".bin") and path.is_file():
        from ..checkpoint.one_file import load_config

        config = load_config(path)
        return Target(replace(shape_of(config), name=path.stem), config=config)
    if path.is_file():
        raise RequestError(f"{target}: a plan is made for a recipe (.yaml), a model directory, a .gguf file or a published "
                           "model by name (llmwright plan --help lists them)")
    return Target(preset(target))


def _recipe(path: Path, overrides: list[str]) -> Target:
    from .. import recipe as recipes
    from ..families.shapes import shape as compose

    recipe, notes = recipes.load(path, list(overrides)), []
    data = _prepared(recipe.directory / "data" / "data.json")
    vocab_size = data.get("vocab_size") or ASSUMED_VOCABULARY.get(recipe.tokenizer.kind, recipe.tokenizer.vocab_size)
    if recipe.tokenizer.kind in ASSUMED_VOCABULARY and not data:
        notes.append(f"vocabulary: {vocab_size} (assumed until the text is prepared)")
    if recipe.train.epochs and not data:
        notes.append("train.epochs: how many tokens the text has is not known until it is prepared")
    if recipe.model.start_from:
        config = _model_directory(resolve(recipe.model.start_from))
    else:
        config = compose(recipe.model, vocab_size)
    run = from_recipe(recipe.train, config, data.get("tokens"))
    return Target(replace(shape_of(config), name=recipe.name), run, tuple(notes), config, recipe)


def _prepared(file: Path) -> dict:
    """Vocabulary and training tokens of a recipe whose data is already prepared; {} if it is not."""
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        return {"vocab_size": card["vocab_size"],
                "tokens": sum(shard["tokens"] for shard in card["splits"]["train"]["shards"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _model_directory(path: Path) -> ModelConfig:
    from .. import families

    file = path / "config.json"
    try:
        return families.read_config(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RequestError(f"{path}: not a model directory (it has no config.json)") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{file}: cannot be read as JSON: {error}") from None


def from_numbers(params: float | None, tokens: float | None, flops: float | None, context: int | None
                 ) -> tuple[Shape, float, list[str]]:
    """(a typical shape, tokens, what was assumed) from bare numbers, filled up by 20 tokens a parameter."""
    notes = []
    if params is None and flops is not None:
        params, tokens = scaling.from_compute(flops) if tokens is None else (flops / 6 / tokens, tokens)
    elif params is None:
        params = scaling.params_for(tokens)
    shape = typical(params, context or 2048)
    notes.append(f"shape: a typical one of {shape.n_layers} layers, {shape.d_model} wide (assumed)")
    if tokens is None:
        tokens = flops / 6 / params if flops is not None else scaling.tokens_for(params)
        notes.append("tokens: 20 a parameter" if flops is None else "tokens: what the FLOPs allow")
    return shape, tokens, notes


def default_run(shape: Shape, tokens: float | None) -> tuple[Training, list[str]]:
    """One row of the model's context, and the tokens it was published with or 20 a parameter."""
    if tokens is not None:
        return training(tokens, 1, shape.context), []
    if shape.tokens:
        return training(shape.tokens, 1, shape.context), ["tokens: as published"]
    return (training(scaling.tokens_for(parameters(shape).active), 1, shape.context),
            ["tokens: 20 a parameter (assumed)"])
