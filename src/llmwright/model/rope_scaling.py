"""Rotary frequencies for contexts beyond the training's.

A channel pair turns by position · frequency. Read further than trained, the slow pairs reach angles they never showed
in training. The schemes differ in which pairs are slowed down, and by how much:

- linear: all pairs by the factor (Chen et al. 2023, "position interpolation");
- NTK-aware: a larger base, so that the slow pairs are stretched and the fast ones hardly (bloc97 2023, written down in
  Peng et al. 2023, section 3.1), by a fixed factor or by the length at hand ("dynamic");
- YaRN: interpolate the pairs that turn seldom within the trained context, keep those that turn often, a ramp between;
  scores are sharpened by a factor on cos and sin (Peng et al. 2023, sections 3.2-3.4);
- Llama 3: the same idea with wavelengths as bounds (Dubey et al. 2024, section 3.4.3).
"""

import math

import torch
from torch import Tensor

from .config import Rotary


def frequencies(spec: Rotary, dim: int, length: int = 0) -> tuple[Tensor, float]:
    """The angle a position adds to each of `dim`/2 channel pairs, (dim/2,) float32, and what multiplies cos and sin.

    `length`: positions at hand; it matters to the dynamic scheme alone.
    """
    # on the CPU even while a model is built without memory: PyTorch loads its compiler to compute on "meta" (1 second)
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim  # (dim/2,)
    plain = spec.theta**-exponents
    s = spec.scaling
    if s is None:
        return plain, 1.0
    if s.kind == "linear":
        return plain / s.factor, 1.0
    if s.kind in ("ntk", "dynamic"):
        stretch = s.factor
        if s.kind == "dynamic":  # 1 up to the trained length
            stretch = s.factor * max(length, s.original_context) / s.original_context - (s.factor - 1)
        return (spec.theta * stretch ** (dim / (dim - 2))) ** -exponents, 1.0
    if s.kind == "llama3":
        wavelength = 2 * math.pi / plain
        turns = s.original_context / wavelength  # within the trained context
        kept = ((turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)).clamp(0, 1)
        return kept * plain + (1 - kept) * plain / s.factor, 1.0
    if s.kind == "yarn":
        low, high = (_pair_that_turns(n, spec.theta, dim, s.original_context) for n in (s.beta_fast, s.beta_slow))
        if s.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, dim - 1)
        high += 0.001 * (low == high)  # a ramp needs a width
        ramp = ((torch.arange(dim // 2, dtype=torch.float32, device="cpu") - low) / (high - low)).clamp(0, 1)
        sharpen = s.attention_factor
        if sharpen is None:
            sharpen = 0.1 * math.log(s.factor) + 1 if s.factor > 1 else 1.0
        return plain * (1 - ramp) + plain / s.factor * ramp, sharpen
    raise ValueError(f"no rope scaling {s.kind!r}")


def _pair_that_turns(n: float, theta: float, dim: int, context: int) -> float:
    """The channel pair that turns `n` times within `context` positions."""
    return dim * math.log(context / (n * 2 * math.pi)) / (2 * math.log(theta))
