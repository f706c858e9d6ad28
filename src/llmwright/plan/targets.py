"""What a plan is asked about: a recipe, a model directory, a published model by name, or bare numbers."""

import json
from dataclasses import replace
from pathlib import Path

from ..errors import RequestError
from . import scaling
from .parameters import parameters
from .presets import PRESETS, preset
from .shape import Shape, shape_of, typical
from .training import Training, from_recipe, training

# a vocabulary before its text was read: characters of one language, or every byte, and a few special tokens
ASSUMED_VOCABULARY = {"chars": 128, "bytes": 260}


def read(target: str | None, overrides: list[str] = ()) -> tuple[Shape, Training | None, list[str]] | None:
    """(shape, its recipe's run or None, what was assumed) of `target`; None for no target.

    Raises RequestError for a target that is none of recipe, model directory and preset.
    """
    if target is None:
        return None
    path = Path(target).expanduser()
    if path.is_dir() or path.suffix in (".yaml", ".yml"):
        found = _model_directory(path) if path.is_dir() else _recipe(path, overrides)
    elif overrides:
        raise RequestError(f"{overrides[0]}: only a recipe (a .yaml file) takes key=value; {target} is none")
    elif path.is_file():
        raise RequestError(f"{target}: a plan is made for a recipe (.yaml), a model directory or one of the presets "
                           f"{', '.join(PRESETS)}")
    else:
        found = preset(target), None, []
    return found


def _recipe(path: Path, overrides: list[str]):
    from .. import recipe as recipes
    from ..families.shapes import shape as compose

    recipe, notes = recipes.load(path, list(overrides)), []
    tokenizer = recipe.tokenizer
    vocab_size = ASSUMED_VOCABULARY.get(tokenizer.kind, tokenizer.vocab_size)
    if tokenizer.kind in ASSUMED_VOCABULARY:
        notes.append(f"vocabulary: {vocab_size} (assumed until the text is read)")
    data = _data_summary(recipe.directory)
    vocab_size = data.get("vocab_size") or vocab_size
    if recipe.model.start_from:
        shape = _model_directory(Path(recipe.model.start_from).expanduser())[0]
    else:
        shape = shape_of(compose(recipe.model, vocab_size))
    if recipe.train.epochs and not data.get("train_tokens") and not recipe.train.steps:
        notes.append("train.epochs: the text's tokens are not known before `prepare`; give --tokens")
    return replace(shape, name=recipe.name), from_recipe(recipe.train, shape, data.get("train_tokens")), notes


def _data_summary(directory: Path) -> dict:
    """Vocabulary and training tokens of a recipe whose data is already prepared; {} if it is not."""
    try:
        data = json.loads((directory / "data" / "data.json").read_text(encoding="utf-8"))
        return {"vocab_size": data["vocab_size"], "train_tokens": data["splits"]["train"]["tokens"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _model_directory(path: Path):
    from .. import families

    file = path / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(f"{path}: not a model directory (it has no config.json)") from None
    except (OSError, ValueError) as error:
        raise RequestError(f"{file}: cannot be read as JSON: {error}") from None
    return replace(shape_of(families.read_config(config)), name=path.resolve().name), None, []


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
