"""Gemma 1, 2 and 3 (Gemma team 2024, 2024, 2025; the third one's text models): Llama with embeddings scaled by
sqrt(d_model), GELU in the gate, and heads of a width of their own.

Gemma 2 puts norms after each part as well as before it, caps the scores and the logits, and gives every other layer a
sliding window. Gemma 3 has a norm on each query and key head in place of the cap on the scores, five windowed layers
for each full one, and in these a smaller rotary base.

Norm weights are stored minus 1.
"""

from ..errors import RequestError
from ..model.config import Attention, Head, ModelConfig
from . import llama, rope, windows
from .family import Family, need, number
from .names import Rule, rule

_SANDWICH = {
    "input_layernorm": "attention_norm", "post_attention_layernorm": "attention_post_norm",
    "pre_feedforward_layernorm": "feed_forward_norm", "post_feedforward_layernorm": "feed_forward_post_norm",
}
_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
_TOLD = ("attention_bias", "sliding_window", *_CAPS)


def _attention(c: dict, **parts) -> Attention:
    bias = bool(c.get("attention_bias"))
    return llama.attention(c, head_dim=256, qkv_bias=bias, out_bias=bias, **parts)


def _compose(c: dict, family: str, attention: Attention, **parts) -> ModelConfig:
    # both keys are in use; "gelu" has always meant the tanh form here
    activation = c.get("hidden_activation") or c.get("hidden_act")
    c = {**c, "hidden_act": "gelu_pytorch_tanh" if activation in (None, "gelu") else activation}
    return llama.compose(
        c, family, attention, tied=True, embedding_scale=need(c, "hidden_size") ** 0.5, **{"context": 8192, **parts}
    )


def _cap(c: dict, key: str, default: float | None) -> float | None:
    return number(c, key, default) if c.get(key, default) is not None else None


def _scale(c: dict) -> float:
    return number(c, "query_pre_attn_scalar", 256) ** -0.5


def _read_gemma(c: dict) -> ModelConfig:
    return _compose(c, "gemma", _attention(c), knows=("attention_bias",))


def _read_gemma2(c: dict) -> ModelConfig:
    cap, final = (_cap(c, key, default) for key, default in zip(_CAPS, (50.0, 30.0)))
    return _compose(
        c, "gemma2", _attention(c, scale=_scale(c), softcap=cap), knows=_TOLD, residual="sandwich",
        head=Head(softcap=final), windows=windows.read(c, [i % 2 == 0 for i in range(need(c, "num_hidden_layers"))]),
    )


def _read_gemma3(c: dict) -> ModelConfig:
    if c.get(_CAPS[0]) is not None:
        raise RequestError(f"config.json: {_CAPS[0]} is not supported: Gemma 3 normalizes queries and keys instead")
    every = c.get("sliding_window_pattern") or c.get("_sliding_window_pattern") or 6
    if type(every) is not int:
        raise RequestError(f"config.json: sliding_window_pattern = {every!r} is not allowed: it must be a whole number")
    seen = windows.read(c, [(i + 1) % every != 0 for i in range(need(c, "num_hidden_layers"))])
    p = c.get("rope_parameters") or {}
    nested = isinstance(p, dict) and (windows.FULL in p or windows.SLIDING in p)
    everywhere, near = ((p.get(kind) or {}) if nested else {} for kind in (windows.FULL, windows.SLIDING))
    if not isinstance(everywhere, dict):
        raise RequestError(f"config.json: rope_parameters.{windows.FULL} is not allowed: it must be a mapping")
    older = c.get("rope_scaling") or {}  # what it says is of the full layers
    if nested and isinstance(older, dict):
        p, older = {**everywhere, **older}, None
    positions, context = rope.read(
        {**c, "rope_parameters": p, "rope_scaling": older}, context=131_072, theta=1_000_000.0)
    local = rope.rotary_of(
        {}, near, f"rope_parameters.{windows.SLIDING}", context=context,
        theta=c.get("rope_local_base_freq") or 10_000.0)
    return _compose(
        c, "gemma3_text", _attention(c, scale=_scale(c), qk_norm=True), knows=_TOLD, residual="sandwich",
        head=Head(softcap=_cap(c, _CAPS[1], None)), windows=seen, context=context, positions=positions,
        local_positions=local if seen else None,
    )


def _write_gemma(config: ModelConfig) -> dict:
    if config.embedding_scale != config.d_model**0.5:
        raise RequestError(f"a {config.family} model scales embeddings by sqrt(d_model), not {config.embedding_scale:g}")
    keys = llama.write(config)
    return {**keys, "hidden_activation": keys["hidden_act"], "attention_bias": config.attention.qkv_bias}


def _write_gemma2(config: ModelConfig) -> dict:
    scale = config.attention.scale or config.attention.head_dim**-0.5
    return {
        **_write_gemma(config), **windows.write(config), "query_pre_attn_scalar": round(scale**-2),
        **dict(zip(_CAPS, (config.attention.softcap, config.head.softcap))),
    }


def _write_gemma3(config: ModelConfig) -> dict:
    keys, local = _write_gemma2(config), config.local_positions or config.positions
    near = rope.parameters_of(local, config.attention.head_dim)
    if near["rope_type"] == "default":  # else only transformers 5's spelling can say it
        keys["rope_local_base_freq"] = near["rope_theta"]
    return {**keys, "rope_parameters": {windows.FULL: keys["rope_parameters"], windows.SLIDING: near}}


def _norm(theirs: str, ours: str) -> Rule:
    """Stored minus 1. In float32, as 1 would swallow half of what a small bfloat16 says."""
    return rule(theirs, ours, join=lambda parts: parts[0] - 1, split=lambda tensor: [tensor.float() + 1])


def _rules(config: ModelConfig) -> list[Rule]:
    return llama.rules(config, norm=_norm, norms=_SANDWICH if config.residual == "sandwich" else llama.NORMS)


def _family(model_type: str, architecture: str, read, write) -> Family:
    return Family(model_type, architecture, read, write, _rules, prefix="model.", ignored=llama.IGNORED)


GEMMA = _family("gemma", "GemmaForCausalLM", _read_gemma, _write_gemma)
GEMMA2 = _family("gemma2", "Gemma2ForCausalLM", _read_gemma2, _write_gemma2)
GEMMA3 = _family("gemma3_text", "Gemma3ForCausalLM", _read_gemma3, _write_gemma3)
