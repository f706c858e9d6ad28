"""From a recipe's few numbers to a family's whole configuration, with the family's own defaults."""

from dataclasses import replace

from ..errors import RequestError
from ..model.config import ModelConfig
from . import read_config


def shape(spec, vocab_size: int, special_tokens: dict[str, int] | None = None) -> ModelConfig:
    """`spec` is the recipe's `model` section (`recipe.Model`); `vocab_size` comes from the tokenizer."""
    if spec.head_dim is None and spec.d_model % spec.n_heads:
        raise RequestError(
            f"model.n_heads {spec.n_heads} does not divide model.d_model {spec.d_model}: every head takes an equal "
            f"share of the width; try {_divisors(spec.d_model, spec.n_heads)}"
        )
    initialization = {
        key: value for key in ("init_std", "init_residual_scale") if (value := getattr(spec, key)) is not None
    }
    return replace(_published(spec, vocab_size, special_tokens), **initialization)


def _published(spec, vocab_size: int, special_tokens: dict[str, int] | None) -> ModelConfig:
    specials = {f"{name}_token_id": id for name, id in (special_tokens or {}).items()}
    if spec.family == "gpt2":
        for key, default in (("n_kv_heads", spec.n_heads), ("head_dim", spec.d_model // spec.n_heads)):
            if getattr(spec, key) not in (None, default):
                raise RequestError(f"model.{key} {getattr(spec, key)}: the gpt2 family has {default} with this shape")
        return read_config({
            "model_type": "gpt2", "vocab_size": vocab_size, "n_embd": spec.d_model, "n_layer": spec.n_layers,
            "n_head": spec.n_heads, "n_positions": spec.context, "n_inner": spec.d_ff,
            "attn_pdrop": spec.dropout, "resid_pdrop": spec.dropout, "embd_pdrop": spec.dropout,
            "tie_word_embeddings": spec.tie_embeddings, **specials,
        })
    return read_config({
        "model_type": spec.family, "vocab_size": vocab_size, "hidden_size": spec.d_model,
        "num_hidden_layers": spec.n_layers, "num_attention_heads": spec.n_heads,
        "num_key_value_heads": spec.n_kv_heads, "head_dim": spec.head_dim or spec.d_model // spec.n_heads,
        "intermediate_size": spec.d_ff or -(-spec.d_model * 8 // 3 // 64) * 64,
        "max_position_embeddings": spec.context, "rope_theta": spec.rope_theta, "rms_norm_eps": 1e-6,
        "attention_dropout": spec.dropout, "tie_word_embeddings": spec.tie_embeddings, **specials,
    })


def _divisors(width: int, near: int) -> str:
    divisors = [n for n in range(1, width + 1) if width % n == 0 and width // n >= 8]
    return " or ".join(str(n) for n in sorted(sorted(divisors, key=lambda n: abs(n - near))[:2]))
