"""BLOOM (Le Scao et al. 2022): ALiBi, a LayerNorm on the embeddings, biases, GELU, tied embeddings.

Query, key and value are stored in one matrix, head by head.
"""

import torch

from ..errors import RequestError
from ..model.config import ALiBi, Attention, FeedForward, ModelConfig, Norm
from .family import Family, need, refuse, special_tokens, write_special_tokens
from .names import Rule, rule


def _read(c: dict) -> ModelConfig:
    # published files name the sizes in either way
    spelled = {"hidden_size": "n_embed", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads"}
    c = c | {name: c[other] for name, other in spelled.items() if name not in c and other in c}
    refuse(c, "apply_residual_connection_post_layernorm", (False, None))
    d_model, n_heads = need(c, "hidden_size"), need(c, "n_head")
    refuse(c, "n_inner", (None, 4 * d_model))
    if d_model % n_heads:
        raise RequestError(f"config.json: hidden_size {d_model} is not a multiple of n_head {n_heads}")
    dropout = c.get("hidden_dropout") or 0.0
    return ModelConfig(
        family="bloom",
        vocab_size=need(c, "vocab_size"),
        d_model=d_model,
        n_layers=need(c, "n_layer"),
        context=c.get("seq_length") or 2048,
        attention=Attention(
            n_heads, n_heads, d_model // n_heads, qkv_bias=True, out_bias=True,
            dropout=c.get("attention_dropout") or 0.0,
        ),
        feed_forward=FeedForward(4 * d_model, "gelu_tanh", gated=False, bias=True),
        positions=ALiBi(),
        norm=Norm("layer", eps=c.get("layer_norm_epsilon", 1e-5), bias=True),
        embedding_norm=True,
        tie_embeddings=c.get("tie_word_embeddings", True),
        residual_dropout=dropout,
        init_std=c.get("initializer_range", 0.02),
        special_tokens=special_tokens(c),
    )


def _write(config: ModelConfig) -> dict:
    if config.feed_forward.d_ff != 4 * config.d_model:
        raise RequestError(f"a bloom model's d_ff is 4 · d_model, {4 * config.d_model}, not {config.feed_forward.d_ff}")
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.attention.n_heads,
        "seq_length": config.context,
        "layer_norm_epsilon": config.norm.eps,
        "attention_dropout": config.attention.dropout,
        "hidden_dropout": config.residual_dropout,
        "apply_residual_connection_post_layernorm": False,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
        **write_special_tokens(config),
    }


def fused(theirs: str, ours: str, config: ModelConfig, kind: str) -> Rule:
    """One matrix or bias for query, key and value: for each key-value head its query heads, then itself, then its
    values, (K · (H/K + 2) · C, …). With as many key-value heads as heads that is BLOOM's, with fewer Falcon's."""
    a = config.attention
    group = a.n_heads // a.n_kv_heads

    def join(parts):
        return torch.cat([part.unflatten(0, (a.n_kv_heads, -1, a.head_dim)) for part in parts], dim=1).flatten(0, 2)

    def split(tensor):
        heads = tensor.unflatten(0, (a.n_kv_heads, group + 2, a.head_dim))  # (K, H/K + 2, C, …)
        return [part.flatten(0, 2) for part in heads.split([group, 1, 1], dim=1)]

    parts = (f"{ours}.{name}.{kind}" for name in ("query", "key", "value"))
    return rule(f"{theirs}.{kind}", *parts, join=join, split=split)


def _rules(config: ModelConfig) -> list[Rule]:
    names = {"word_embeddings_layernorm": "embedding_norm", "ln_f": "norm"}
    rules = [rule("transformer.word_embeddings.weight", "embed.weight")]
    for i in range(config.n_layers):
        layer = {
            "input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm",
            "self_attention.dense": "attention.out", "mlp.dense_h_to_4h": "feed_forward.up",
            "mlp.dense_4h_to_h": "feed_forward.down",
        }
        names |= {f"h.{i}.{t}": f"blocks.{i}.{o}" for t, o in layer.items()}
    for kind in ("weight", "bias"):
        rules += [rule(f"transformer.{t}.{kind}", f"{o}.{kind}") for t, o in names.items()]
        rules += [
            fused(f"transformer.h.{i}.self_attention.query_key_value", f"blocks.{i}.attention", config, kind)
            for i in range(config.n_layers)
        ]
    if not config.tie_embeddings:
        rules.append(rule("lm_head.weight", "head.weight"))
    return rules


BLOOM = Family("bloom", "BloomForCausalLM", _read, _write, _rules, prefix="transformer.")
