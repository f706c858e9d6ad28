"""Llama (Touvron et al. 2023) and Qwen3 (Yang et al. 2025): RMSNorm, rotary positions, SwiGLU, grouped-query attention.

Qwen3 is Llama with an RMSNorm on each query and key head and a head width of its own.
"""

from ..errors import RequestError
from ..model.config import Attention, FeedForward, ModelConfig, Norm, Rotary
from .family import Family, need, refuse, special_tokens, write_special_tokens
from .names import Rule, rule


def _rope_theta(c: dict) -> float:
    rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise RequestError(f"config.json: rope_parameters = {rope!r} is not allowed: it must be a mapping")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise RequestError(f"config.json: rope scaling {kind!r} is not supported; supported: 'default'")
    refuse(rope, "partial_rotary_factor", (1, 1.0, None))
    return rope.get("rope_theta") or c.get("rope_theta") or 10_000.0


def _read(c: dict, family: str) -> ModelConfig:
    refuse(c, "hidden_act", ("silu",))
    refuse(c, "pretraining_tp", (1, None))
    refuse(c, "use_sliding_window", (False, None))
    n_heads = need(c, "num_attention_heads")
    qwen3, d_model = family == "qwen3", need(c, "hidden_size")
    if not c.get("head_dim") and d_model % n_heads:
        raise RequestError(f"config.json: hidden_size {d_model} is not a multiple of num_attention_heads {n_heads}")
    return ModelConfig(
        family=family,
        vocab_size=need(c, "vocab_size"),
        d_model=d_model,
        n_layers=need(c, "num_hidden_layers"),
        context=c.get("max_position_embeddings") or (32_768 if qwen3 else 2048),
        attention=Attention(
            n_heads=n_heads,
            n_kv_heads=c.get("num_key_value_heads") or n_heads,
            head_dim=c.get("head_dim") or d_model // n_heads,
            qkv_bias=bool(c.get("attention_bias")),
            out_bias=bool(c.get("attention_bias")),
            qk_norm=qwen3,
            dropout=c.get("attention_dropout") or 0.0,
        ),
        feed_forward=FeedForward(d_ff=need(c, "intermediate_size"), bias=bool(c.get("mlp_bias"))),
        positions=Rotary(theta=_rope_theta(c)),
        norm=Norm("rms", eps=c.get("rms_norm_eps") or 1e-6),
        tie_embeddings=bool(c.get("tie_word_embeddings")),
        init_std=c.get("initializer_range") or 0.02,
        special_tokens=special_tokens(c),
    )


def _write(config: ModelConfig) -> dict:
    a = config.attention
    own = {"use_sliding_window": False, "sliding_window": None} if a.qk_norm else {"mlp_bias": config.feed_forward.bias}
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "max_position_embeddings": config.context,
        "num_attention_heads": a.n_heads,
        "num_key_value_heads": a.n_kv_heads,
        "head_dim": a.head_dim,
        "attention_bias": a.qkv_bias,
        "attention_dropout": a.dropout,
        "intermediate_size": config.feed_forward.d_ff,
        "hidden_act": "silu",
        "rope_theta": config.positions.theta,  # transformers 4 reads this, 5 the next
        "rope_parameters": {"rope_type": "default", "rope_theta": config.positions.theta},
        "rms_norm_eps": config.norm.eps,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
        **write_special_tokens(config),
        **own,
    }


def _rules(config: ModelConfig) -> list[Rule]:
    a = config.attention
    rules = [rule("model.embed_tokens.weight", "embed.weight"), rule("model.norm.weight", "norm.weight")]
    for i in range(config.n_layers):
        theirs, ours = f"model.layers.{i}", f"blocks.{i}"
        names = {
            "input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm",
            "self_attn.q_proj": "attention.query", "self_attn.k_proj": "attention.key",
            "self_attn.v_proj": "attention.value", "self_attn.o_proj": "attention.out",
            "mlp.gate_proj": "feed_forward.gate", "mlp.up_proj": "feed_forward.up",
            "mlp.down_proj": "feed_forward.down",
        }
        if a.qk_norm:
            names |= {"self_attn.q_norm": "attention.query_norm", "self_attn.k_norm": "attention.key_norm"}
        for t, o in names.items():
            rules.append(rule(f"{theirs}.{t}.weight", f"{ours}.{o}.weight"))
            biased = (a.qkv_bias and t.startswith("self_attn") and "norm" not in t) or (
                config.feed_forward.bias and t.startswith("mlp")
            )
            if biased:
                rules.append(rule(f"{theirs}.{t}.bias", f"{ours}.{o}.bias"))
    if not config.tie_embeddings:
        rules.append(rule("lm_head.weight", "head.weight"))
    return rules


def _family(name: str, architecture: str) -> Family:
    return Family(
        name, architecture, lambda c: _read(c, name), _write, _rules, prefix="model.", ignored=("rotary_emb.inv_freq",)
    )


LLAMA = _family("llama", "LlamaForCausalLM")
QWEN3 = _family("qwen3", "Qwen3ForCausalLM")
