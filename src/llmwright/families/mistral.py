"""Mistral 7B (Jiang et al. 2023): Llama in which every layer sees a sliding window."""

from ..errors import RequestError
from ..model.config import ModelConfig
from . import llama, windows
from .family import Family, need


def sliding(c: dict, *, window: int | None) -> tuple[int | None, ...]:
    """Windows where `sliding_window` has a value, in all layers alike (`layer_types` may say so as well)."""
    slides = c.get("sliding_window", window) is not None
    seen = windows.read(c, [slides] * need(c, "num_hidden_layers"), window=window)
    if len(set(seen)) > 1:
        raise RequestError(f"config.json: layer_types of two kinds are not supported for {c.get('model_type')}")
    return seen


def _read(c: dict) -> ModelConfig:
    return llama.compose(
        c, "mistral", llama.attention(c), knows=("sliding_window",), context=131_072, windows=sliding(c, window=4096)
    )


def _write(config: ModelConfig) -> dict:
    return {**llama.write(config), "sliding_window": windows.write(config)["sliding_window"]}


MISTRAL = Family(
    "mistral", "MistralForCausalLM", _read, _write, llama.rules, prefix="model.", ignored=llama.IGNORED
)
