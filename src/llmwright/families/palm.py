"""PaLM (Chowdhery et al. 2022, section 2): parallel layers, one key-value head, SwiGLU, rotary positions, no biases,
one table for input and output.

The transformers library has no such family, and no weights were published: `config.json` and the weights are named as
Llama's are. Logits are divided by sqrt(d_model), since the embeddings have a standard deviation of 1 (section 5).
"""

from ..errors import RequestError
from ..model.config import Attention, FeedForward, Head, ModelConfig, Norm
from . import rope
from .family import Family, need, refuse, special_tokens, write_special_tokens
from .names import Rule, rule


def _read(c: dict) -> ModelConfig:
    refuse(c, "hidden_act", ("silu",))
    refuse(c, "tie_word_embeddings", (True, None))
    d_model, n_heads = need(c, "hidden_size"), need(c, "num_attention_heads")
    positions, context = rope.read(c, context=2048)
    if not c.get("head_dim") and d_model % n_heads:
        raise RequestError(f"config.json: hidden_size {d_model} is not a multiple of num_attention_heads {n_heads}")
    return ModelConfig(
        family="palm",
        vocab_size=need(c, "vocab_size"),
        d_model=d_model,
        n_layers=need(c, "num_hidden_layers"),
        context=context,
        attention=Attention(
            n_heads, c.get("num_key_value_heads") or 1, c.get("head_dim") or d_model // n_heads,
            dropout=c.get("attention_dropout") or 0.0,
        ),
        feed_forward=FeedForward(c.get("intermediate_size") or 4 * d_model),
        positions=positions,
        norm=Norm("layer", eps=c.get("layer_norm_eps") or 1e-5),
        residual="parallel",
        head=Head(scale=d_model**-0.5),
        tie_embeddings=True,
        residual_dropout=c.get("hidden_dropout") or 0.0,
        init_std=c.get("initializer_range") or 1.0,
        init_fan_in=True,
        special_tokens=special_tokens(c),
    )


def _write(config: ModelConfig) -> dict:
    a = config.attention
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": a.n_heads,
        "num_key_value_heads": a.n_kv_heads,
        "head_dim": a.head_dim,
        "intermediate_size": config.feed_forward.d_ff,
        "hidden_act": "silu",
        **rope.write(config),
        "layer_norm_eps": config.norm.eps,
        "attention_dropout": a.dropout,
        "hidden_dropout": config.residual_dropout,
        "tie_word_embeddings": True,
        "initializer_range": config.init_std,  # of the embeddings; a matrix has 1/sqrt(its inputs)
        **write_special_tokens(config),
    }


def _rules(config: ModelConfig) -> list[Rule]:
    names = {"embed_tokens": "embed", "norm": "norm"}
    for i in range(config.n_layers):
        layer = {
            "input_layernorm": "attention_norm", "self_attn.q_proj": "attention.query",
            "self_attn.k_proj": "attention.key", "self_attn.v_proj": "attention.value",
            "self_attn.o_proj": "attention.out", "mlp.gate_proj": "feed_forward.gate",
            "mlp.up_proj": "feed_forward.up", "mlp.down_proj": "feed_forward.down",
        }
        names |= {f"layers.{i}.{t}": f"blocks.{i}.{o}" for t, o in layer.items()}
    return [rule(f"model.{t}.weight", f"{o}.weight") for t, o in names.items()]


PALM = Family("palm", "PalmForCausalLM", _read, _write, _rules, prefix="model.")
