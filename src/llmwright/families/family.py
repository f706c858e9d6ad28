"""What a family is: a published configuration and published weight names, each read and written."""

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import RequestError
from ..model.config import ModelConfig
from .names import Rule

ACTIVATIONS = {  # published names → ours
    "swish": "silu", "silu": "silu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu",
    "relu": "relu",
}

MOST_LAYERS, MOST_EXPERTS, MOST = 10_000, 4_096, 1 << 24  # beyond, a number was mistyped, or is there to take memory


@dataclass(frozen=True)
class Family:
    """`model_type` and `architecture` are what `config.json` says of itself.

    `read(config.json) → ModelConfig` and `write(ModelConfig) → config.json` are inverse for every field that
    matters; where a family has several architectures, `write` says "architectures" itself. `rules(ModelConfig)` lists
    the weights. `ignored` are endings of published names that hold no weights (masks, rotary tables); `tied` are names
    that repeat the embeddings where these are tied, and are then passed over. `prefix` may be missing from published
    names, or stand before them where ours have none. `renamed` pairs endings of older files with today's. `fit`: of a
    family whose files may end in more or fewer parts than their `config.json` says, the composition that the names
    in the files call for.
    """

    model_type: str
    architecture: str
    read: Callable[[dict], ModelConfig]
    write: Callable[[ModelConfig], dict]
    rules: Callable[[ModelConfig], list[Rule]]
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    tied: tuple[str, ...] = ("lm_head.weight",)
    renamed: tuple[tuple[str, str], ...] = ()
    fit: Callable[[ModelConfig, set[str]], ModelConfig] | None = None

    def meant(self, name: str, known) -> str | None:
        """The one of the `known` names that a file's `name` stands for."""
        for old, new in self.renamed:
            name = name.removesuffix(old) + new if name.endswith(old) else name
        return next((n for n in (name, self.prefix + name, name.removeprefix(self.prefix)) if n in known), None)


def need(config: dict, key: str) -> int:
    """The size `config[key]`, or a clear error."""
    value = config.get(key)
    if value is None:
        raise RequestError(f"config.json: {key} is missing; a {config.get('model_type')} configuration needs it")
    most = MOST_LAYERS if "layer" in key else MOST_EXPERTS if "expert" in key else MOST
    if type(value) is not int or not 1 <= value <= most:
        raise RequestError(f"config.json: {key} = {_short(value)} is not allowed: it must be a whole number from 1 to {most:,}")
    return value


def refuse(config: dict, key: str, allowed: tuple) -> None:
    """Raise unless `config[key]` is absent or one of `allowed`."""
    if key in config and config[key] not in allowed:
        said = ", ".join(repr(a) for a in allowed)
        raise RequestError(f"config.json: {key} = {config[key]!r} is not supported; supported: {said}")


def number(config: dict, key: str, default: float | None = None, where: str = "") -> float | None:
    """The number above 0 at `key`, or `default` where there is none. `where`: what comes before the key in an error."""
    value = config.get(key)
    if value is None:
        return default
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise RequestError(f"config.json: {where}{key} = {value!r} is not allowed: it must be a number above 0")
    return value


def published_activation(activation: str, tanh: str = "gelu_pytorch_tanh") -> str:
    """`tanh`: what the family calls the approximation of GELU, of its two names."""
    return tanh if activation == "gelu_tanh" else activation


def _short(value) -> str:
    return repr(value) if not isinstance(value, int) or abs(value) < 10**30 else f"a number of {value.bit_length():,} bits"


def special_tokens(config: dict) -> tuple[tuple[str, int], ...]:
    """(("bos", id), …) from `bos_token_id` and so on; there may be several end tokens. Ids that the vocabulary has not
    are left out, as published files have some (-1, for none)."""
    found = []
    for name in ("bos", "eos", "pad"):
        value = config.get(f"{name}_token_id")
        found += [(name, id) for id in (value if isinstance(value, list) else [value]) if _is_token(id, config)]
    return tuple(found)


def start_token(config: dict, default: int | None = None) -> tuple[str, int]:
    """("start", id): what a decoder beside an encoder begins with."""
    start = config.get("decoder_start_token_id")
    start = default if start is None else start
    if start is None:
        raise RequestError(f"config.json: decoder_start_token_id is missing; a {config.get('model_type')} configuration "
                           "needs it")
    if not _is_token(start, config):
        raise RequestError(f"config.json: decoder_start_token_id = {_short(start)} is not allowed: it must be a token's id, "
                           "below vocab_size")
    return "start", start


def _is_token(id, config: dict) -> bool:
    return type(id) is int and 0 <= id < config.get("vocab_size", MOST)


def write_special_tokens(config: ModelConfig) -> dict:
    written = {}
    for name in ("bos", "eos", "pad"):
        ids = config.specials(name)
        written[f"{name}_token_id"] = list(ids) if len(ids) > 1 else config.special(name)
    return written
