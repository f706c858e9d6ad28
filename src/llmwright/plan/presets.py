"""Published models, by shape: landmarks to compare a plan with.

Each comes from the paper or the published configuration named beside it; the tests hold the counts against the
published ones. Every name of the catalogue (`checkpoint/catalogue.py`) is here, so a model can be planned before it is
pulled.
"""

import difflib
from dataclasses import replace

from ..checkpoint import catalogue
from ..errors import RequestError
from .shape import Shape


def _gpt2(name: str, d_model: int, n_layers: int, n_heads: int, context: int = 1024, tokens=None) -> Shape:
    """Radford et al. 2019: heads of 64 (GPT-3's largest: 128), F = 4D, biases everywhere, a tied head."""
    return Shape(name, 50_257, d_model, n_layers, n_heads, n_heads, d_model // n_heads, 4 * d_model, context,
                 gated=False, positions="learned", norm="layer", norm_bias=True, qkv_bias=True, out_bias=True,
                 ff_bias=True, tie_embeddings=True, tokens=tokens)


def _encoder(name: str, d_model: int, n_layers: int, n_heads: int, vocab_size: int = 30_522, position_rows: int = 512,
             token_types: int = 2, pooler: bool = False) -> Shape:
    """Devlin et al. 2019: norms after each addition, F = 4D, biases everywhere, dropout 0.1; it fills masks or has a pooler."""
    return Shape(name, vocab_size, d_model, n_layers, n_heads, n_heads, d_model // n_heads, 4 * d_model, 512, kind="encoder",
                 residual="post", gated=False, activation="gelu", positions="learned", position_rows=position_rows, norm="layer",
                 norm_bias=True, qkv_bias=True, out_bias=True, ff_bias=True, embedding_norm=True, token_types=token_types,
                 pooler=pooler, head_transform=not pooler, head_bias=not pooler, tie_embeddings=True, dropout=True,
                 attention_dropout=True)


def _roberta(name: str, d_model: int, n_layers: int, n_heads: int) -> Shape:
    """Liu et al. 2019: BERT with another vocabulary, one token type and positions counted from 2 on."""
    return _encoder(name, d_model, n_layers, n_heads, 50_265, 514, 1)


def _t5(name: str, d_model: int, n_layers: int, n_heads: int, d_ff: int, head_dim: int = 64, tokens: float | None = None) -> Shape:
    """Raffel et al. 2020: as many layers in the encoder, ReLU, one table for all, dropout 0.1, rows of 512 tokens."""
    return Shape(name, 32_128, d_model, n_layers, n_heads, n_heads, head_dim, d_ff, 512, kind="encoder-decoder",
                 n_encoder_layers=n_layers, gated=False, activation="relu", positions="buckets", n_buckets=32,
                 tie_embeddings=True, dropout=True, attention_dropout=True, ff_dropout=True, tokens=tokens)


def _flan(name: str, d_model: int, n_layers: int, n_heads: int, d_ff: int) -> Shape:
    """Chung et al. 2022, which start from T5 1.1: a gated GELU and a head of its own."""
    return replace(_t5(name, d_model, n_layers, n_heads, d_ff), gated=True, activation="gelu_tanh", tie_embeddings=False)


_ALL = (
    _gpt2("gpt2", 768, 12, 12),
    _gpt2("gpt2-medium", 1024, 24, 16),
    _gpt2("gpt2-large", 1280, 36, 20),
    _gpt2("gpt2-xl", 1600, 48, 25),
    # Brown et al. 2020, tables 2.1 and D.1
    _gpt2("gpt3-175b", 12_288, 96, 96, context=2048, tokens=300e9),
    # Hoffmann et al. 2022, table 4; Transformer-XL positions as in Gopher (Rae et al. 2021, section 2.1)
    Shape("chinchilla-70b", 32_000, 8192, 80, 64, 64, 128, 4 * 8192, 2048, gated=False,
          positions="transformer-xl", tie_embeddings=True, tokens=1.4e12),
    # Grattafiori et al. 2024, table 3, and the published config.json
    Shape("llama-3-8b", 128_256, 4096, 32, 32, 8, 128, 14_336, 8192, tokens=15e12),
    Shape("llama-3-70b", 128_256, 8192, 80, 64, 8, 128, 28_672, 8192, tokens=15e12),
    # Almazrouei et al. 2023: parallel block with a norm for each half, multi-query in 8 groups, no biases
    Shape("falcon-180b", 65_024, 14_848, 80, 232, 8, 64, 4 * 14_848, 2048, gated=False, norm="layer",
          norm_bias=True, tokens=3.5e12),
    # Mistral AI 2024, the published config.json of Mixtral-8x22B-v0.1: 2 of 8 experts a token
    Shape("mixtral-8x22b", 32_000, 6144, 56, 48, 8, 128, 16_384, 65_536, n_experts=8, active_experts=2),
    # small ones that a laptop runs: their published config.json
    Shape("smollm2-135m", 49_152, 576, 30, 9, 3, 64, 1536, 8192, tie_embeddings=True, tokens=2e12),
    Shape("smollm2-135m-instruct", 49_152, 576, 30, 9, 3, 64, 1536, 8192, tie_embeddings=True),
    Shape("smollm2-360m-instruct", 49_152, 960, 32, 15, 5, 64, 2560, 8192, tie_embeddings=True),
    Shape("smollm2-1.7b-instruct", 49_152, 2048, 24, 32, 32, 64, 8192, 8192, tie_embeddings=True),
    Shape("llama-3.2-1b-instruct", 128_256, 2048, 16, 32, 8, 64, 8192, 131_072, tie_embeddings=True),
    Shape("qwen2.5-0.5b-instruct", 151_936, 896, 24, 14, 2, 64, 4864, 32_768, qkv_bias=True, tie_embeddings=True),
    Shape("qwen3-0.6b", 151_936, 1024, 28, 16, 8, 128, 3072, 40_960, qk_norm=True, tie_embeddings=True,
          tokens=36e12),
    Shape("gemma-3-270m-it", 262_144, 640, 18, 4, 1, 256, 2048, 32_768, residual="sandwich", windows=3 * (*5 * (512,), None),
          activation="gelu_tanh", qk_norm=True, tie_embeddings=True),
    Shape("bloom-560m", 250_880, 1024, 24, 16, 16, 64, 4096, 2048, gated=False, activation="gelu_tanh", positions="alibi",
          norm="layer", norm_bias=True, qkv_bias=True, out_bias=True, ff_bias=True, embedding_norm=True, tie_embeddings=True),
    # larger ones: their published config.json
    Shape("mistral-7b-instruct", 32_768, 4096, 32, 32, 8, 128, 14_336, 32_768),
    Shape("mixtral-8x7b-instruct", 32_000, 4096, 32, 32, 8, 128, 14_336, 32_768, n_experts=8, active_experts=2),
    Shape("falcon-7b-instruct", 65_024, 4544, 32, 71, 1, 64, 4 * 4544, 2048, residual="parallel", gated=False,
          activation="gelu", norm="layer", norm_bias=True, tie_embeddings=True),
    _encoder("bert-base-uncased", 768, 12, 12),
    _encoder("bert-large-uncased", 1024, 24, 16),
    _roberta("roberta-base", 768, 12, 12),
    _roberta("roberta-large", 1024, 24, 16),
    _encoder("all-minilm-l6-v2", 384, 6, 12, pooler=True),
    # Raffel et al. 2020, section 3.7: about 1 trillion tokens
    _t5("t5-small", 512, 6, 8, 2048, tokens=1e12),
    _t5("t5-base", 768, 12, 12, 3072, tokens=1e12),
    _t5("t5-large", 1024, 24, 16, 4096, tokens=1e12),
    _t5("t5-3b", 1024, 24, 32, 16_384, 128, tokens=1e12),
    _t5("t5-11b", 1024, 24, 128, 65_536, 128, tokens=1e12),
    _flan("flan-t5-small", 512, 8, 6, 1024),
    _flan("flan-t5-base", 768, 12, 12, 2048),
    _flan("flan-t5-large", 1024, 24, 16, 2816),
    _flan("flan-t5-xl", 2048, 24, 32, 5120),
    _flan("flan-t5-xxl", 4096, 24, 64, 10_240),
)

PRESETS: dict[str, Shape] = {shape.name: shape for shape in _ALL}


def preset_key(name: str) -> str:
    """The spelling of PRESETS, also for a model of the catalogue that is called by its hub id."""
    key = name.strip().lower().replace("_", "-").replace("×", "x")
    return next((known for known, entry in catalogue.MODELS.items() if entry.hub.lower() == name.strip().lower()), key)


def preset(name: str) -> Shape:
    """The published shape called `name`. Raises RequestError with the nearest names."""
    key = preset_key(name)
    if key in PRESETS:
        return PRESETS[key]
    near = difflib.get_close_matches(key.rsplit("/", 1)[-1], PRESETS, 3, 0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else "llmwright plan --help lists the presets"
    pull = f" (a model of the hub can be planned once it is here: llmwright pull {name})" if name.count("/") == 1 else ""
    raise RequestError(f"{name}: no such preset, recipe or model directory; {hint}{pull}")
