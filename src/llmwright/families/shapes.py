"""From a recipe's few numbers to a family's whole configuration, with the family's own defaults.

Each family has a function here that writes what its `config.json` would say (`spec`: the recipe's `model` section,
`specials`: the ids of the tokenizer's special tokens as config.json names them); the family's file reads it.
"""

from dataclasses import replace

from ..errors import RequestError
from ..model.config import ModelConfig
from . import read_config

MODEL_TYPES = {"gemma3": "gemma3_text"}  # where config.json has another name than a recipe


def shape(spec, vocab_size: int, special_tokens: dict[str, int] | None = None) -> ModelConfig:
    """`spec` is the recipe's `model` section (`recipe.Model`); `vocab_size` comes from the tokenizer."""
    if spec.head_dim is None and spec.d_model % spec.n_heads:
        raise RequestError(
            f"model.n_heads {spec.n_heads} does not divide model.d_model {spec.d_model}: every head takes an equal "
            f"share of the width; try {_divisors(spec.d_model, spec.n_heads)}"
        )
    specials = {f"{name}_token_id": id for name, id in (special_tokens or {}).items()}
    config = read_config({
        "model_type": MODEL_TYPES.get(spec.family, spec.family), "vocab_size": vocab_size, **specials,
        **_start(spec, special_tokens or {}), **_WRITERS[spec.family](spec, specials),
    })
    changes = {key: value for key in ("init_std", "init_residual_scale") if (value := getattr(spec, key)) is not None}
    return replace(config, **changes)


def _start(spec, special_tokens: dict[str, int]) -> dict:
    """A decoder beside an encoder begins its text with padding, as T5 and Marian do."""
    if spec.family not in ("t5", "marian"):
        return {}
    ids = [special_tokens[name] for name in ("pad", "eos", "bos") if name in special_tokens]
    return {"decoder_start_token_id": ids[0] if ids else 0}


def _gated(spec) -> int:
    return spec.d_ff or -(-spec.d_model * 8 // 3 // 64) * 64


def _plain(spec) -> int:
    return spec.d_ff or 4 * spec.d_model


def _llama(spec, specials) -> dict:
    return {
        "hidden_size": spec.d_model, "num_hidden_layers": spec.n_layers, "num_attention_heads": spec.n_heads,
        "num_key_value_heads": spec.n_kv_heads, "head_dim": spec.head_dim or spec.d_model // spec.n_heads,
        "intermediate_size": _gated(spec), "max_position_embeddings": spec.context,
        "rope_theta": spec.rope_theta or 10_000.0, "rms_norm_eps": 1e-6, "attention_dropout": spec.dropout,
        "tie_word_embeddings": spec.tie_embeddings,
    }


def _windowed(spec, specials, widest: int = 4096) -> dict:
    """The papers' windows are half of the context that they train on."""
    return {**_llama(spec, specials), "sliding_window": spec.window or min(widest, max(1, spec.context // 2))}


def _mixtral(spec, specials) -> dict:
    given = {
        "num_local_experts": spec.n_experts, "num_experts_per_tok": spec.active_experts,
        "router_aux_loss_coef": 0.02 if spec.balance_loss is None else spec.balance_loss,  # as published
        "router_z_loss_coef": 0.001 if spec.z_loss is None else spec.z_loss,  # Zoph et al. 2022, section 3.3
    }
    given = {key: value for key, value in given.items() if value is not None}
    return {**_llama(spec, specials), "sliding_window": spec.window, **given}


def _gemma2(spec, specials) -> dict:
    return {**_windowed(spec, specials), "query_pre_attn_scalar": spec.head_dim or spec.d_model // spec.n_heads}


def _gemma3(spec, specials) -> dict:
    """One layer of six sees everything, and of fewer than six the last."""
    return {
        **_gemma2(spec, specials), **_windowed(spec, specials, 1024), "rope_theta": spec.rope_theta or 1_000_000.0,
        "rope_local_base_freq": 10_000.0, "sliding_window_pattern": min(6, spec.n_layers),
    }


def _gpt2(spec, specials) -> dict:
    return {
        "n_embd": spec.d_model, "n_layer": spec.n_layers, "n_head": spec.n_heads, "n_positions": spec.context,
        "n_inner": spec.d_ff, "attn_pdrop": spec.dropout, "resid_pdrop": spec.dropout, "embd_pdrop": spec.dropout,
        "tie_word_embeddings": spec.tie_embeddings,
    }


def _bloom(spec, specials) -> dict:
    return {
        "hidden_size": spec.d_model, "n_layer": spec.n_layers, "n_head": spec.n_heads, "seq_length": spec.context,
        "attention_dropout": spec.dropout, "hidden_dropout": spec.dropout, "tie_word_embeddings": spec.tie_embeddings,
    }


def _falcon(spec, specials) -> dict:
    """Up to one key-value head the 7B's layout, with several that of 40B."""
    n_kv_heads = spec.n_kv_heads or 1
    new = n_kv_heads not in (1, spec.n_heads)
    return {
        "hidden_size": spec.d_model, "num_hidden_layers": spec.n_layers, "num_attention_heads": spec.n_heads,
        "num_kv_heads": n_kv_heads, "new_decoder_architecture": new, "multi_query": n_kv_heads == 1,
        "parallel_attn": True, "ffn_hidden_size": _plain(spec), "max_position_embeddings": spec.context,
        "rope_theta": spec.rope_theta or 10_000.0, "attention_dropout": spec.dropout, "hidden_dropout": spec.dropout,
        "tie_word_embeddings": spec.tie_embeddings,
    }


def _palm(spec, specials) -> dict:
    return {
        **_llama(spec, specials), "num_key_value_heads": spec.n_kv_heads or 1, "intermediate_size": _plain(spec),
        "hidden_dropout": spec.dropout,
    }


def _bert(spec, specials) -> dict:
    """In the architecture that is trained to fill masks."""
    return {
        "architectures": ["BertForMaskedLM"],
        "hidden_size": spec.d_model, "num_hidden_layers": spec.n_layers, "num_attention_heads": spec.n_heads,
        "intermediate_size": _plain(spec), "max_position_embeddings": spec.context,
        "hidden_dropout_prob": spec.dropout, "attention_probs_dropout_prob": spec.dropout,
        "tie_word_embeddings": spec.tie_embeddings,
    }


def _roberta(spec, specials) -> dict:
    """Positions are counted from the padding token's id on."""
    first = specials.get("pad_token_id", 1) + 1
    return {
        **_bert(spec, specials), "architectures": ["RobertaForMaskedLM"], "type_vocab_size": 1,
        "max_position_embeddings": first + spec.context,
    }


def _t5(spec, specials) -> dict:
    return {
        "d_model": spec.d_model, "num_layers": spec.n_encoder_layers or spec.n_layers,
        "num_decoder_layers": spec.n_layers, "num_heads": spec.n_heads,
        "d_kv": spec.head_dim or spec.d_model // spec.n_heads,
        "d_ff": _plain(spec) if spec.tie_embeddings else _gated(spec), "n_positions": spec.context,
        "feed_forward_proj": "relu" if spec.tie_embeddings else "gated-gelu",
        "scale_decoder_outputs": spec.tie_embeddings, "tie_word_embeddings": spec.tie_embeddings,
        "dropout_rate": spec.dropout,
    }


def _marian(spec, specials) -> dict:
    sides = {
        f"{side}_{name}": value for side in ("encoder", "decoder")
        for name, value in (("attention_heads", spec.n_heads), ("ffn_dim", _plain(spec)))
    }
    return {
        **sides, "d_model": spec.d_model, "encoder_layers": spec.n_encoder_layers or spec.n_layers,
        "decoder_layers": spec.n_layers, "max_position_embeddings": spec.context, "activation_function": "relu",
        "scale_embedding": True, "dropout": spec.dropout,  # where the paper has it, section 5.4: not on attention's weights
    }


_WRITERS = {
    "llama": _llama, "mistral": _windowed, "mixtral": _mixtral, "qwen2": _llama,
    "qwen3": _llama, "gemma": _llama, "gemma2": _gemma2, "gemma3": _gemma3, "gpt2": _gpt2, "bloom": _bloom,
    "falcon": _falcon, "palm": _palm, "bert": _bert, "roberta": _roberta, "t5": _t5, "marian": _marian,
}


def _divisors(width: int, near: int) -> str:
    divisors = [n for n in range(1, width + 1) if width % n == 0 and width // n >= 8]
    return " or ".join(str(n) for n in sorted(sorted(divisors, key=lambda n: abs(n - near))[:2]))
