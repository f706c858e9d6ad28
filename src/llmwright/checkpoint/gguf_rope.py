"""Rotary settings in GGUF metadata, both ways.

`{arch}.rope.freq_base` is the base; `{arch}.rope.scaling.*` hold linear scaling and YaRN. Llama 3's scaling is not
described but computed: a tensor `rope_freqs.weight` has what divides each channel pair's frequency, and the few numbers
behind it are found again here.
"""

import math

import numpy as np
import torch

from ..errors import RequestError
from ..model import rope_scaling
from ..model.config import RopeScaling, Rotary

FACTORS = "rope_freqs.weight"


def read(gguf, arch: str, head_dim: int) -> dict:
    """The `rope_parameters` of config.json."""
    metadata, prefix = gguf.metadata, f"{arch}.rope."
    theta = short(metadata.get(prefix + "freq_base", float, 10_000.0))
    found = {"rope_type": "default", "rope_theta": theta}
    turned = metadata.get(prefix + "dimension_count", int, head_dim)
    if turned != head_dim:
        raise RequestError(f"{metadata.path}: {prefix}dimension_count is {turned} and a head {head_dim} wide; a {arch} "
                           "model turns whole heads")
    kind = metadata.get(prefix + "scaling.type", str, "none")
    if kind in ("linear", "yarn"):
        found |= {"rope_type": kind, "factor": short(metadata.get(prefix + "scaling.factor", float))}
        original = metadata.get(prefix + "scaling.original_context_length", int, None)
        if original:
            found["original_max_position_embeddings"] = original
        if kind == "yarn":
            found |= _read_yarn(metadata, prefix, found["factor"])
    elif kind != "none":
        raise RequestError(f"{metadata.path}: {prefix}scaling.type is {kind!r}, which is not supported; supported: "
                           "none, linear, yarn")
    if FACTORS in gguf.tensors:
        found |= _llama3(gguf.tensors[FACTORS], theta, head_dim, metadata.path)
    return found


def _read_yarn(metadata, prefix: str, factor: float) -> dict:
    found = {}
    for key, name in (("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow"),
                      ("yarn_attn_factor", "attention_factor")):
        value = metadata.get(f"{prefix}scaling.{key}", float, None)
        if value is not None:
            found[name] = short(value)
    own = metadata.get(prefix + "scaling.attn_factor", float, None)
    if own is not None:  # llama.cpp multiplies YaRN's own sharpening by this
        found["attention_factor"] = short(own * (0.1 * math.log(factor) + 1))
    return found


def _llama3(entry, theta: float, head_dim: int, path) -> dict:
    """Llama 3's four numbers from what divides the frequencies.

    Pair i with n_i turns in the trained context keeps the share s_i = (n_i − low) / (high − low) of its frequency and
    1 − s_i of it over `factor`. The largest divisor is `factor`. Between the bounds s_i is linear in the frequency, and
    the three other numbers matter only up to a common multiple, so a line through those pairs gives them with low = 1.
    """
    factors = entry.read().double().flatten().numpy()
    if len(factors) != head_dim // 2:
        raise RequestError(f"{path}: {FACTORS} has {len(factors)} numbers; a head of {head_dim} has {head_dim // 2} "
                           "pairs")
    factor = float(short(factors.max()))
    guesses = [(8192, 1.0, 4.0)]  # as published
    share = (1 / factors - 1 / factor) / (1 - 1 / factor) if factor > 1 else np.zeros(len(factors))
    inside = (share > 1e-4) & (share < 1 - 1e-4)
    frequency = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    if inside.any():  # one pair alone: suppose that high is 4, as published
        guesses.append((round(float((1 + 3 * share[inside][0]) * 2 * math.pi / frequency[inside][0])), 1.0, 4.0))
    if inside.sum() > 1:
        slope, start = np.polyfit(frequency[inside], share[inside], 1)
        if start < 0 < slope:
            guesses.append((round(-slope / start * 2 * math.pi), 1.0, float(1 - 1 / start)))
    for original, low, high in guesses:
        scaling = RopeScaling("llama3", factor, original, low_freq_factor=low, high_freq_factor=round(high, 3))
        if np.allclose(divisors(Rotary(theta, scaling=scaling), head_dim), factors, rtol=1e-3):
            return {"rope_type": "llama3", "factor": factor, "original_max_position_embeddings": original,
                    "low_freq_factor": low, "high_freq_factor": scaling.high_freq_factor}
    raise RequestError(f"{path}: {FACTORS} is not Llama 3's scaling of rotary frequencies, the only one supported")


def divisors(rotary: Rotary, head_dim: int) -> np.ndarray:
    """What the scaling divides each pair's frequency by, (head_dim/2,) float32."""
    plain = rope_scaling.frequencies(Rotary(rotary.theta), head_dim)[0]
    return (plain / rope_scaling.frequencies(rotary, head_dim)[0]).numpy()


def write(rotary: Rotary, head_dim: int) -> tuple[dict, dict[str, torch.Tensor]]:
    """(metadata below `{arch}.rope.`, tensors). Raises RequestError for a scaling that GGUF cannot say."""
    entries: dict = {"dimension_count": rotary.dim or head_dim, "freq_base": float(rotary.theta)}
    s = rotary.scaling
    if s is None:
        return entries, {}
    if s.kind == "llama3":
        return entries, {FACTORS: torch.from_numpy(divisors(rotary, head_dim))}
    if s.kind == "ntk":  # nothing but a larger base
        return entries | {"freq_base": rotary.theta * s.factor ** (head_dim / (head_dim - 2))}, {}
    if s.kind not in ("linear", "yarn") or not s.truncate:
        raise RequestError(f"rope scaling {s.kind!r} cannot be written into a GGUF file")
    entries |= {"scaling.type": s.kind, "scaling.factor": float(s.factor),
                "scaling.original_context_length": s.original_context}
    if s.kind == "yarn":
        entries |= {"scaling.yarn_beta_fast": s.beta_fast, "scaling.yarn_beta_slow": s.beta_slow}
        if s.attention_factor is not None:
            entries["scaling.attn_factor"] = s.attention_factor / (0.1 * math.log(s.factor) + 1)
    return entries, {}


def short(value: float) -> float:
    """A float32 as the shortest decimal number that gives it: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))
