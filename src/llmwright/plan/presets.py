"""Published models, by shape: landmarks to compare a plan with.

Each comes from the paper or the published configuration named beside it; the tests hold the counts against the
published ones.
"""

import difflib

from ..errors import RequestError
from .shape import Shape


def _gpt2(name: str, d_model: int, n_layers: int, n_heads: int, context: int = 1024, tokens=None) -> Shape:
    """Radford et al. 2019: heads of 64 (GPT-3's largest: 128), F = 4D, biases everywhere, a tied head."""
    return Shape(name, 50_257, d_model, n_layers, n_heads, n_heads, d_model // n_heads, 4 * d_model, context,
                 gated=False, positions="learned", norm="layer", norm_bias=True, qkv_bias=True, out_bias=True,
                 ff_bias=True, tie_embeddings=True, tokens=tokens)


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
    Shape("qwen3-0.6b", 151_936, 1024, 28, 16, 8, 128, 3072, 40_960, qk_norm=True, tie_embeddings=True,
          tokens=36e12),
)

PRESETS: dict[str, Shape] = {shape.name: shape for shape in _ALL}


def preset_key(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace("×", "x")


def preset(name: str) -> Shape:
    """The published shape called `name`. Raises RequestError with the nearest names."""
    key = preset_key(name)
    if key in PRESETS:
        return PRESETS[key]
    near = difflib.get_close_matches(key, PRESETS, 3, 0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(PRESETS)}"
    raise RequestError(f"{name}: no such preset, recipe or model directory; {hint}")
