"""The transformer of 2017 (Vaswani et al. 2017) as Marian publishes it (Junczys-Dowmunt et al. 2018; the OPUS-MT models
of Tiedemann & Thottingal 2020): encoder-decoder, sinusoidal positions, LayerNorm after each addition, biases, embeddings
times sqrt(d_model), one table for source, target and output.

Files may add a number to each token's logit (`final_logits_bias`), which the paper does not have; new models have none.
A decoder's text begins with the padding token.
"""

from dataclasses import replace

from ..errors import RequestError
from ..model.config import Attention, FeedForward, Head, ModelConfig, Norm, Sinusoidal
from .family import ACTIVATIONS, Family, need, published_activation, refuse, special_tokens, start_token, write_special_tokens
from .names import Rule, rule



def _read(c: dict) -> ModelConfig:
    refuse(c, "activation_function", tuple(ACTIVATIONS))
    for key in ("is_encoder_decoder", "static_position_embeddings", "share_encoder_decoder_embeddings",
                "tie_word_embeddings"):
        refuse(c, key, (True, None))
    for key in ("normalize_before", "normalize_embedding", "layernorm_embedding", "add_final_layer_norm"):
        refuse(c, key, (False, None))
    for key in ("encoder_layerdrop", "decoder_layerdrop"):
        refuse(c, key, (0, None))
    d_model, vocab_size, n_heads = need(c, "d_model"), need(c, "vocab_size"), need(c, "encoder_attention_heads")
    d_ff = need(c, "encoder_ffn_dim")
    refuse(c, "decoder_attention_heads", (n_heads,))
    refuse(c, "decoder_ffn_dim", (d_ff,))
    refuse(c, "decoder_vocab_size", (vocab_size, None))
    if d_model % n_heads:
        raise RequestError(f"config.json: d_model {d_model} is not a multiple of encoder_attention_heads {n_heads}")
    dropout = c.get("dropout", 0.1)
    return ModelConfig(
        family="marian",
        kind="encoder-decoder",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layers=need(c, "decoder_layers"),
        n_encoder_layers=need(c, "encoder_layers"),
        context=c.get("max_position_embeddings") or 1024,
        attention=Attention(
            n_heads, n_heads, d_model // n_heads, qkv_bias=True, out_bias=True, dropout=c.get("attention_dropout", 0.0)
        ),
        feed_forward=FeedForward(
            d_ff, ACTIVATIONS[c.get("activation_function", "gelu")], gated=False, bias=True,
            dropout=c.get("activation_dropout", 0.0),
        ),
        positions=Sinusoidal(),
        norm=Norm("layer", eps=1e-5, bias=True),
        residual="post",
        embedding_scale=d_model**0.5 if c.get("scale_embedding") else 1.0,
        tie_embeddings=True,
        residual_dropout=dropout,
        embedding_dropout=dropout,
        init_std=c.get("init_std") or d_model**-0.5,  # of the embeddings; a matrix has 1/sqrt(its inputs)
        init_fan_in=True,
        special_tokens=(*special_tokens(c), start_token(c)),
    )


def _write(config: ModelConfig) -> dict:
    a, f = config.attention, config.feed_forward
    return {
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "decoder_vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "encoder_layers": config.n_encoder_layers,
        "decoder_layers": config.n_layers,
        "encoder_attention_heads": a.n_heads,
        "decoder_attention_heads": a.n_heads,
        "encoder_ffn_dim": f.d_ff,
        "decoder_ffn_dim": f.d_ff,
        "activation_function": published_activation(f.activation, "gelu_new"),
        "max_position_embeddings": config.context,
        "static_position_embeddings": True,
        "normalize_before": False,
        "normalize_embedding": False,
        "add_final_layer_norm": False,
        "scale_embedding": config.embedding_scale != 1,
        "dropout": config.residual_dropout,
        "attention_dropout": a.dropout,
        "activation_dropout": f.dropout,
        "share_encoder_decoder_embeddings": True,
        "tie_word_embeddings": True,
        "init_std": config.init_std,
        **write_special_tokens(config),
        "decoder_start_token_id": config.special("start"),
        "forced_eos_token_id": None,  # what ends at the limit is not said to have ended by itself
    }


def _fit(config: ModelConfig, names: set[str]) -> ModelConfig:
    """A bias on the logits is where its numbers are."""
    return replace(config, head=Head(bias="final_logits_bias" in names))


def _rules(config: ModelConfig) -> list[Rule]:
    names = {}
    for stack, layers in (("encoder", config.n_encoder_layers), ("decoder", config.n_layers)):
        parts = {"self_attn": "attention"} | ({"encoder_attn": "cross_attention"} if stack == "decoder" else {})
        for i in range(layers):
            theirs, ours = f"model.{stack}.layers.{i}", f"{stack}.blocks.{i}"
            for t, o in parts.items():
                names[f"{theirs}.{t}_layer_norm"] = f"{ours}.{o}_norm"
                for matrix, own in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "out")):
                    names[f"{theirs}.{t}.{matrix}"] = f"{ours}.{o}.{own}"
            names |= {
                f"{theirs}.fc1": f"{ours}.feed_forward.up", f"{theirs}.fc2": f"{ours}.feed_forward.down",
                f"{theirs}.final_layer_norm": f"{ours}.feed_forward_norm",
            }
    rules = [rule("model.shared.weight", "embed.weight")]
    rules += [rule(f"{t}.{kind}", f"{o}.{kind}") for t, o in names.items() for kind in ("weight", "bias")]
    if config.head.bias:  # stored as one row, (1, V)
        rules.append(rule("final_logits_bias", "head.bias", join=lambda parts: parts[0][None], split=lambda t: [t[0]]))
    return rules


MARIAN = Family(
    "marian", "MarianMTModel", _read, _write, _rules, fit=_fit, prefix="model.",
    # repeat model.shared.weight, or can be computed
    ignored=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "embed_positions.weight"),
)
