"""Rotary positions as published configurations write them, both ways.

transformers 5 puts all of it under `rope_parameters`; before, `rope_theta` stood beside `rope_scaling`, whose kind is
called `rope_type` or, still earlier, `type`. We read all three and write both of the first, so that either version
reads what we wrote. `model/rope_scaling.py` has the formulas.
"""

import math

from ..errors import RequestError
from ..model.config import ModelConfig, RopeScaling, Rotary
from .family import need, number

KINDS = ("default", "linear", "dynamic", "yarn", "llama3")
_BOUNDS = ("low_freq_factor", "high_freq_factor")


def read(c: dict, *, context: int, theta: float = 10_000.0) -> tuple[Rotary, int]:
    """The positions of `c` and the longest text they are made for. `context` and `theta` are what the family has where
    `c` has neither."""
    context = need({"max_position_embeddings": c.get("max_position_embeddings") or context}, "max_position_embeddings")
    key = "rope_scaling" if c.get("rope_scaling") else "rope_parameters"
    rotary = rotary_of(c, c.get(key) or {}, key, context=context, theta=c.get("rope_theta") or theta)
    s = rotary.scaling
    if s and s.kind in ("dynamic", "yarn"):  # where max_position_embeddings is what the model was trained on
        context = max(context, int(s.original_context * s.factor))
    return rotary, context


def rotary_of(c: dict, p: dict, where: str, *, context: int, theta: float) -> Rotary:
    """`p`: what stands at `where` in config.json `c`."""
    if not isinstance(p, dict):
        raise RequestError(f"config.json: {where} = {p!r} is not allowed: it must be a mapping")
    kind = p.get("rope_type", p.get("type", "default"))
    if kind not in KINDS:
        raise RequestError(
            f"config.json: {where}: rope scaling {kind!r} is not supported; supported: {', '.join(KINDS)}")
    if p.get("partial_rotary_factor", c.get("partial_rotary_factor")) not in (None, 1):
        raise RequestError("config.json: partial_rotary_factor is not supported: in this family the whole head turns")
    theta = number(p, "rope_theta", where=where + ".") or theta
    if kind == "default":
        return Rotary(theta)
    read = {name: number(p, name, where=where + ".") for name in ("factor", *_BOUNDS, "attention_factor", "mscale",
                                                                 "mscale_all_dim", "beta_fast", "beta_slow")}
    original = c.get("original_max_position_embeddings") or p.get("original_max_position_embeddings") or context
    original = need({"original_max_position_embeddings": original}, "original_max_position_embeddings")
    factor = read["factor"]
    if factor is None and kind == "yarn":
        factor = context / original
    if factor is None:
        raise RequestError(f"config.json: {where}.factor is missing; rope scaling {kind!r} needs it")
    if kind == "linear":  # its formula has no original context; published configurations give the extended one
        return Rotary(theta, scaling=RopeScaling(kind, factor, max(1, int(context / factor))))
    if kind == "dynamic":
        return Rotary(theta, scaling=RopeScaling(kind, factor, context))
    if kind == "llama3":
        low, high = (read[name] for name in _BOUNDS)
        if low is None or high is None or not low < high:
            raise RequestError(f"config.json: {where}: low_freq_factor and high_freq_factor must be given, the first "
                               "below the second")
        return Rotary(theta, scaling=RopeScaling(kind, factor, original, low, high))
    if theta <= 1:
        raise RequestError(f"config.json: {where}.rope_theta = {theta!r} is not allowed: YaRN needs one above 1")
    sharpen = read["attention_factor"]
    if sharpen is None and read["mscale"] and read["mscale_all_dim"]:  # DeepSeek's spelling of the same
        sharpen = _sharpen(factor, read["mscale"]) / _sharpen(factor, read["mscale_all_dim"])
    return Rotary(theta, scaling=RopeScaling(
        kind, factor, original, beta_fast=read["beta_fast"] or 32.0, beta_slow=read["beta_slow"] or 1.0,
        attention_factor=sharpen, truncate=bool(p.get("truncate", True)),
    ))


def _sharpen(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0


def write(config: ModelConfig) -> dict:
    """The keys of config.json for `config.positions` and the context."""
    rotary, s = config.positions, config.positions.scaling
    parameters = parameters_of(rotary, config.attention.head_dim)
    keys = {
        "max_position_embeddings": s.original_context if s and s.kind == "dynamic" else config.context,
        "rope_theta": parameters["rope_theta"],
        "rope_parameters": parameters,
    }
    if parameters["rope_type"] != "default":
        keys["rope_scaling"] = {name: value for name, value in parameters.items() if name != "rope_theta"}
    return keys


def parameters_of(rotary: Rotary, head_dim: int) -> dict:
    """`rope_parameters`, in transformers 5's spelling."""
    s = rotary.scaling
    if s is None:
        return {"rope_type": "default", "rope_theta": rotary.theta}
    if s.kind == "ntk":  # no kind of theirs: a larger base, and nothing else
        return {"rope_type": "default", "rope_theta": rotary.theta * s.factor ** (head_dim / (head_dim - 2))}
    parameters = {"rope_type": s.kind, "rope_theta": rotary.theta, "factor": s.factor}
    if s.kind in ("yarn", "llama3"):
        parameters["original_max_position_embeddings"] = s.original_context
    if s.kind == "llama3":
        parameters |= {name: getattr(s, name) for name in _BOUNDS}
    if s.kind == "yarn":
        parameters |= {name: getattr(s, name) for name in ("beta_fast", "beta_slow", "truncate")}
        if s.attention_factor is not None:
            parameters["attention_factor"] = s.attention_factor
    return parameters
