"""Qwen2 (Yang et al. 2024) and Qwen3 (Yang et al. 2025). Qwen2 is Llama with biases on query, key and value; Qwen3 has an
RMSNorm on each query and key head instead, and a head width of its own. In both, the layers from `max_window_layers`
on may have a sliding window."""

from ..errors import RequestError
from ..model.config import ModelConfig
from . import llama, windows
from .family import Family, need


def _windows(c: dict) -> tuple[int | None, ...]:
    n_layers = need(c, "num_hidden_layers")
    if not c.get("use_sliding_window"):
        types = c.get("layer_types")
        if isinstance(types, list) and windows.SLIDING in types:
            raise RequestError(f"config.json: layer_types lists {windows.SLIDING!r}, but use_sliding_window is not true")
        return ()
    full = c.get("max_window_layers", 28)
    if type(full) is not int:
        raise RequestError(f"config.json: max_window_layers = {full!r} is not allowed: it must be a whole number")
    return windows.read(c, [i >= full for i in range(n_layers)])


def _write_windows(config: ModelConfig) -> dict:
    full = next((i for i, window in enumerate(config.windows) if window), config.n_layers)
    return {"use_sliding_window": bool(config.windows), "max_window_layers": full, **windows.write(config)}


def _read_qwen2(c: dict) -> ModelConfig:
    return llama.compose(
        c, "qwen2", llama.attention(c, qkv_bias=True), knows=("sliding_window", "use_sliding_window"), context=32_768,
        windows=_windows(c),
    )


def _read_qwen3(c: dict) -> ModelConfig:
    bias = bool(c.get("attention_bias"))
    return llama.compose(
        c, "qwen3", llama.attention(c, head_dim=128, qkv_bias=bias, out_bias=bias, qk_norm=True),
        knows=("sliding_window", "use_sliding_window", "attention_bias"), context=32_768, windows=_windows(c),
    )


def _write_qwen2(config: ModelConfig) -> dict:
    return {**llama.write(config), **_write_windows(config)}


def _write_qwen3(config: ModelConfig) -> dict:
    return {**_write_qwen2(config), "attention_bias": config.attention.qkv_bias}


QWEN2 = Family(
    "qwen2", "Qwen2ForCausalLM", _read_qwen2, _write_qwen2, llama.rules, prefix="model.", ignored=llama.IGNORED
)
QWEN3 = Family(
    "qwen3", "Qwen3ForCausalLM", _read_qwen3, _write_qwen3, llama.rules, prefix="model.", ignored=llama.IGNORED
)
