"""What a family is: a published configuration and published weight names, each read and written."""

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import RequestError
from ..model.config import ModelConfig
from .names import Rule


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
    if type(value) is not int or value < 1:
        raise RequestError(f"config.json: {key} = {value!r} is not allowed: it must be a whole number from 1 up")
    return value


def refuse(config: dict, key: str, allowed: tuple) -> None:
    """Raise unless `config[key]` is absent or one of `allowed`."""
    if key in config and config[key] not in allowed:
        said = ", ".join(repr(a) for a in allowed)
        raise RequestError(f"config.json: {key} = {config[key]!r} is not supported; supported: {said}")


def special_tokens(config: dict) -> tuple[tuple[str, int], ...]:
    """(("bos", id), …) from `bos_token_id` and so on; of several end tokens, the first."""
    found = []
    for name in ("bos", "eos", "pad"):
        value = config.get(f"{name}_token_id")
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int):
            found.append((name, value))
    return tuple(found)


def write_special_tokens(config: ModelConfig) -> dict:
    return {f"{name}_token_id": config.special(name) for name in ("bos", "eos", "pad")}
