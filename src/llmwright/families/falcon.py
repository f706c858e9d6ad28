"""Falcon (Almazrouei et al. 2023), in its three architectures:

- 7B: attention and feed-forward side by side behind one norm, one key-value head, rotary positions;
- 40B and 180B ("new decoder architecture"): key-value heads in groups, a norm for each of the two parts (11B: one);
- RW: one after the other, each with a norm, as many key-value heads as heads, ALiBi.

Query, key and value are stored in one matrix, group by group.
"""

from ..errors import RequestError
from ..model.config import ALiBi, Attention, FeedForward, ModelConfig, Norm
from . import rope
from .bloom import fused
from .family import ACTIVATIONS, Family, need, published_activation, refuse, special_tokens, write_special_tokens
from .names import Rule, rule



def _read(c: dict) -> ModelConfig:
    refuse(c, "activation", tuple(ACTIVATIONS))
    refuse(c, "apply_residual_connection_post_layernorm", (False, None))
    d_model, n_heads = need(c, "hidden_size"), need(c, "num_attention_heads")
    if d_model % n_heads:
        raise RequestError(f"config.json: hidden_size {d_model} is not a multiple of num_attention_heads {n_heads}")
    head_dim, bias = d_model // n_heads, bool(c.get("bias"))
    residual, n_kv_heads = _layout(c, n_heads)
    positions, context = rope.read(c, context=2048)
    if c.get("alibi"):  # transformers adds the penalties before it divides scores by sqrt(head_dim), and rounds them
        positions = ALiBi(scale=head_dim**-0.5, rounded=True)
    return ModelConfig(
        family="falcon",
        vocab_size=need(c, "vocab_size"),
        d_model=d_model,
        n_layers=need(c, "num_hidden_layers"),
        context=context,
        attention=Attention(
            n_heads, n_kv_heads, head_dim, qkv_bias=bias, out_bias=bias, dropout=c.get("attention_dropout") or 0.0
        ),
        feed_forward=FeedForward(
            c.get("ffn_hidden_size") or 4 * d_model, ACTIVATIONS[c.get("activation", "gelu")], gated=False, bias=bias
        ),
        positions=positions,
        norm=Norm("layer", eps=c.get("layer_norm_epsilon", 1e-5), bias=True),
        residual=residual,
        tie_embeddings=c.get("tie_word_embeddings", True),
        residual_dropout=c.get("hidden_dropout") or 0.0,
        init_std=c.get("initializer_range", 0.02),
        special_tokens=special_tokens(c),
    )


def _layout(c: dict, n_heads: int) -> tuple[str, int]:
    """The residual layout, and the number of key-value heads."""
    norms, parallel = c.get("num_ln_in_parallel_attn"), c.get("parallel_attn", True)
    if c.get("new_decoder_architecture"):
        refuse(c, "parallel_attn", (True, None))
        refuse(c, "num_ln_in_parallel_attn", (None, 1, 2))
        return "parallel" if norms == 1 else "parallel_two_norms", c.get("num_kv_heads") or n_heads
    refuse(c, "num_ln_in_parallel_attn", (None, 1))
    multi_query = c.get("multi_query", True)
    refuse(c, "num_kv_heads", (None, n_heads, 1) if multi_query else (None, n_heads))
    return "parallel" if parallel else "pre", 1 if multi_query else n_heads


def _write(config: ModelConfig) -> dict:
    a = config.attention
    if config.feed_forward.bias != a.qkv_bias:
        raise RequestError("a falcon model has biases in attention and feed-forward, or in neither")
    grouped = a.n_kv_heads not in (1, a.n_heads)
    if grouped and config.residual == "pre":
        raise RequestError(f"a falcon model with one part after the other has 1 or {a.n_heads} key-value heads")
    new = grouped or config.residual == "parallel_two_norms"
    alibi = isinstance(config.positions, ALiBi)
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": a.n_heads,
        "num_kv_heads": a.n_kv_heads,
        "new_decoder_architecture": new,
        "num_ln_in_parallel_attn": 2 if config.residual == "parallel_two_norms" else 1 if new else None,
        "multi_query": a.n_kv_heads == 1,
        "parallel_attn": config.residual != "pre",
        "alibi": alibi,
        "bias": a.qkv_bias,
        "ffn_hidden_size": config.feed_forward.d_ff,
        "activation": published_activation(config.feed_forward.activation),
        "layer_norm_epsilon": config.norm.eps,
        "attention_dropout": a.dropout,
        "hidden_dropout": config.residual_dropout,
        **({"max_position_embeddings": config.context} if alibi else rope.write(config)),
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
        **write_special_tokens(config),
    }


def _rules(config: ModelConfig) -> list[Rule]:
    norms = {
        "pre": {"input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm"},
        "parallel": {"input_layernorm": "attention_norm"},
        "parallel_two_norms": {"ln_attn": "attention_norm", "ln_mlp": "feed_forward_norm"},
    }[config.residual]
    matrices = {
        "self_attention.dense": "attention.out", "mlp.dense_h_to_4h": "feed_forward.up",
        "mlp.dense_4h_to_h": "feed_forward.down",
    }
    kinds = ("weight", "bias")
    rules = [rule("transformer.word_embeddings.weight", "embed.weight")]
    rules += [rule(f"transformer.ln_f.{kind}", f"norm.{kind}") for kind in kinds]
    for i in range(config.n_layers):
        theirs, ours = f"transformer.h.{i}", f"blocks.{i}"
        rules += [rule(f"{theirs}.{t}.{kind}", f"{ours}.{o}.{kind}") for t, o in norms.items() for kind in kinds]
        for kind in kinds if config.attention.qkv_bias else kinds[:1]:
            rules.append(fused(f"{theirs}.self_attention.query_key_value", f"{ours}.attention", config, kind))
            rules += [rule(f"{theirs}.{t}.{kind}", f"{ours}.{o}.{kind}") for t, o in matrices.items()]
    if not config.tie_embeddings:
        rules.append(rule("lm_head.weight", "head.weight"))
    return rules


FALCON = Family(
    "falcon", "FalconForCausalLM", _read, _write, _rules,
    prefix="transformer.", ignored=("rotary_emb.inv_freq", "maybe_rotary.inv_freq"),
)
