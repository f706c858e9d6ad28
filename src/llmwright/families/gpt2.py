"""GPT-2 (Radford et al. 2019): LayerNorm, learned positions, GELU, biases, tied embeddings.

Its linear layers are stored transposed (Conv1D), with query, key and value in one matrix.
"""

from ..errors import RequestError
from ..model.config import Attention, FeedForward, Learned, ModelConfig, Norm
from .family import ACTIVATIONS, Family, need, published_activation, refuse, special_tokens, write_special_tokens
from .names import Rule, rule



def _read(c: dict) -> ModelConfig:
    refuse(c, "activation_function", tuple(ACTIVATIONS))
    refuse(c, "scale_attn_by_inverse_layer_idx", (False, None))
    refuse(c, "scale_attn_weights", (True, None))
    d_model, n_heads, n_layers = need(c, "n_embd"), need(c, "n_head"), need(c, "n_layer")
    if d_model % n_heads:
        raise RequestError(f"config.json: n_embd {d_model} is not a multiple of n_head {n_heads}")
    context = c.get("n_positions") or c.get("n_ctx") or 1024
    return ModelConfig(
        family="gpt2",
        vocab_size=need(c, "vocab_size"),
        d_model=d_model,
        n_layers=n_layers,
        context=context,
        attention=Attention(
            n_heads, n_heads, d_model // n_heads, qkv_bias=True, out_bias=True, dropout=c.get("attn_pdrop", 0.1)
        ),
        feed_forward=FeedForward(
            d_ff=c.get("n_inner") or 4 * d_model,
            activation=ACTIVATIONS[c.get("activation_function", "gelu_new")],
            gated=False,
            bias=True,
        ),
        positions=Learned(context),
        norm=Norm("layer", eps=c.get("layer_norm_epsilon", 1e-5), bias=True),
        tie_embeddings=c.get("tie_word_embeddings", True),
        residual_dropout=c.get("resid_pdrop", 0.1),
        embedding_dropout=c.get("embd_pdrop", 0.1),
        init_std=c.get("initializer_range", 0.02),
        init_residual_scale=(2 * n_layers) ** -0.5,  # section 2.3
        special_tokens=special_tokens(c),
    )


def _write(config: ModelConfig) -> dict:
    return {
        "vocab_size": config.vocab_size,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.attention.n_heads,
        "n_positions": config.context,
        "n_ctx": config.context,
        "n_inner": config.feed_forward.d_ff,
        "activation_function": published_activation(config.feed_forward.activation, "gelu_new"),
        "layer_norm_epsilon": config.norm.eps,
        "attn_pdrop": config.attention.dropout,
        "resid_pdrop": config.residual_dropout,
        "embd_pdrop": config.embedding_dropout,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
        **write_special_tokens(config),
    }


def _rules(config: ModelConfig) -> list[Rule]:
    rules = [rule("transformer.wte.weight", "embed.weight"), rule("transformer.wpe.weight", "positions.weight")]
    for i in range(config.n_layers):
        theirs, ours = f"transformer.h.{i}", f"blocks.{i}"
        norms = {"ln_1": "attention_norm", "ln_2": "feed_forward_norm"}
        matrices = {
            "attn.c_attn": ("attention.query", "attention.key", "attention.value"), "attn.c_proj": ("attention.out",),
            "mlp.c_fc": ("feed_forward.up",), "mlp.c_proj": ("feed_forward.down",),
        }
        for t, o in norms.items():
            rules += [rule(f"{theirs}.{t}.{kind}", f"{ours}.{o}.{kind}") for kind in ("weight", "bias")]
        for t, names in matrices.items():
            rules.append(rule(f"{theirs}.{t}.weight", *(f"{ours}.{o}.weight" for o in names), transpose=True))
            rules.append(rule(f"{theirs}.{t}.bias", *(f"{ours}.{o}.bias" for o in names)))
    rules += [rule(f"transformer.ln_f.{kind}", f"norm.{kind}") for kind in ("weight", "bias")]
    if not config.tie_embeddings:
        rules.append(rule("lm_head.weight", "head.weight"))
    return rules


def _check(c: dict) -> ModelConfig:
    if c.get("add_cross_attention"):
        raise RequestError("config.json: add_cross_attention is not supported: this is a decoder-only family")
    return _read(c)


GPT2 = Family(
    "gpt2", "GPT2LMHeadModel", _check, _write, _rules,
    prefix="transformer.", ignored=("attn.bias", "attn.masked_bias"),
)
