"""Llama 1 to 3 (Touvron et al. 2023; Dubey et al. 2024): RMSNorm, rotary positions, SwiGLU, grouped-query attention.

Mistral, Qwen, Gemma and Mixtral are of this kind. What they share is here, as functions that take what is their own.
"""

from collections.abc import Callable

from ..errors import RequestError
from ..model.config import Attention, FeedForward, ModelConfig, Norm
from . import rope
from .family import (
    ACTIVATIONS, Family, need, published_activation, refuse, special_tokens, write_special_tokens,
)
from .names import Rule, rule

# settings of relatives: where one has a value, and the family does not know it, the weights want something else
FOREIGN = {
    "sliding_window": (None,), "use_sliding_window": (False, None), "attention_bias": (False, None),
    "mlp_bias": (False, None), "use_bidirectional_attention": (False, None), "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None), "attn_logit_softcapping": (None,), "final_logit_softcapping": (None,),
    "num_local_experts": (None,), "clip_qkv": (None,), "residual_multiplier": (None, 1), "logits_scaling": (None, 1),
    "attention_multiplier": (None,), "embedding_multiplier": (None, 1), "no_rope_layers": (None,),
    "rope_interleaved": (False, None),
}
NORMS = {"input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm"}
MATRICES = {
    "self_attn.q_proj": "attention.query", "self_attn.k_proj": "attention.key", "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.out",
}
IGNORED = ("rotary_emb.inv_freq",)


def attention(c: dict, *, head_dim: int | None = None, **parts) -> Attention:
    """The heads of `c`. `head_dim`: the family's own, where it is no share of the width; `parts` as in `Attention`."""
    n_heads, d_model = need(c, "num_attention_heads"), need(c, "hidden_size")
    if not (c.get("head_dim") or head_dim) and d_model % n_heads:
        raise RequestError(f"config.json: hidden_size {d_model} is not a multiple of num_attention_heads {n_heads}")
    return Attention(
        n_heads=n_heads, n_kv_heads=c.get("num_key_value_heads") or n_heads,
        head_dim=c.get("head_dim") or head_dim or d_model // n_heads,
        dropout=c.get("attention_dropout") or 0.0, **parts,
    )


def compose(
    c: dict, family: str, attention: Attention, *, knows: tuple[str, ...] = (), context: int, theta: float = 10_000.0,
    activation: str | None = "silu", mlp_bias: bool = False, tied: bool = False, eps: float = 1e-6, **parts,
) -> ModelConfig:
    """A model of this kind. `knows`: the settings of `FOREIGN` that the family reads; `context`, `theta`, `activation`,
    `tied` and `eps`: what it has where `c` says nothing; `parts` as in `ModelConfig`."""
    for key, allowed in FOREIGN.items():
        if key not in knows:
            refuse(c, key, allowed)
    activation = c.get("hidden_act") or activation
    refuse({"hidden_act": activation}, "hidden_act", tuple(ACTIVATIONS))
    if "positions" not in parts:
        parts["positions"], context = rope.read(c, context=context, theta=theta)
    return ModelConfig(**{
        "family": family, "vocab_size": need(c, "vocab_size"), "d_model": need(c, "hidden_size"),
        "n_layers": need(c, "num_hidden_layers"), "context": context, "attention": attention,
        "feed_forward": FeedForward(need(c, "intermediate_size"), ACTIVATIONS[activation], bias=mlp_bias),
        "norm": Norm("rms", eps=c.get("rms_norm_eps") or eps),
        "tie_embeddings": bool(c.get("tie_word_embeddings", tied)), "init_std": c.get("initializer_range") or 0.02,
        "special_tokens": special_tokens(c), **parts,
    })


def write(config: ModelConfig) -> dict:
    """What all of this kind write."""
    a = config.attention
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": a.n_heads,
        "num_key_value_heads": a.n_kv_heads,
        "head_dim": a.head_dim,
        "attention_dropout": a.dropout,
        "intermediate_size": config.feed_forward.d_ff,
        "hidden_act": published_activation(config.feed_forward.activation),
        **rope.write(config),
        "rms_norm_eps": config.norm.eps,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
        **write_special_tokens(config),
    }


def dense(config: ModelConfig, theirs: str, ours: str) -> list[Rule]:
    """The weights of a layer's feed-forward."""
    kinds = ("weight", "bias") if config.feed_forward.bias else ("weight",)
    return [
        rule(f"{theirs}.mlp.{part}_proj.{kind}", f"{ours}.feed_forward.{part}.{kind}")
        for part in ("gate", "up", "down") for kind in kinds
    ]


def rules(
    config: ModelConfig, *, norms: dict[str, str] = NORMS, norm: Callable[[str, str], Rule] = rule,
    feed_forward: Callable[[ModelConfig, str, str], list[Rule]] = dense,
) -> list[Rule]:
    """All weights. `norms`: a layer's, by their published names; `norm` makes the rule of one."""
    a = config.attention
    made = [rule("model.embed_tokens.weight", "embed.weight"), norm("model.norm.weight", "norm.weight")]
    for i in range(config.n_layers):
        theirs, ours = f"model.layers.{i}", f"blocks.{i}"
        made += [norm(f"{theirs}.{t}.weight", f"{ours}.{o}.weight") for t, o in norms.items()]
        if a.qk_norm:
            made += [norm(f"{theirs}.self_attn.{x[0]}_norm.weight", f"{ours}.attention.{x}_norm.weight")
                     for x in ("query", "key")]
        for t, o in MATRICES.items():
            made.append(rule(f"{theirs}.{t}.weight", f"{ours}.{o}.weight"))
            if a.out_bias if o == "attention.out" else a.qkv_bias:
                made.append(rule(f"{theirs}.{t}.bias", f"{ours}.{o}.bias"))
        made += feed_forward(config, theirs, ours)
    if not config.tie_embeddings:
        made.append(rule("lm_head.weight", "head.weight"))
    return made


def _read(c: dict) -> ModelConfig:
    bias = bool(c.get("attention_bias"))
    return compose(
        c, "llama", attention(c, qkv_bias=bias, out_bias=bias), knows=("attention_bias", "mlp_bias"), context=2048,
        mlp_bias=bool(c.get("mlp_bias")),
    )


def _write(config: ModelConfig) -> dict:
    return {**write(config), "attention_bias": config.attention.qkv_bias, "mlp_bias": config.feed_forward.bias}


LLAMA = Family("llama", "LlamaForCausalLM", _read, _write, rules, prefix="model.", ignored=IGNORED)
