"""Weight names, both ways.

A family lists `Rule`s: which of a published file's tensors is made of which of ours. One published tensor may hold
several of ours, one after another along the output dimension (GPT-2's c_attn holds query, key and value), and may be
stored transposed (GPT-2's Conv1D).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """`theirs` = concatenation of `ours` along dimension 0, then transposed where `transpose`."""

    theirs: str
    ours: tuple[str, ...]
    transpose: bool = False


def rule(theirs: str, *ours: str, transpose: bool = False) -> Rule:
    return Rule(theirs, ours, transpose)


def to_published(state: dict[str, Tensor], rules: Iterable[Rule]) -> dict[str, Tensor]:
    """Our weights under the published names. A tensor that needs no change is not copied."""
    published = {}
    for r in rules:
        tensor = state[r.ours[0]] if len(r.ours) == 1 else torch.cat([state[name] for name in r.ours])
        published[r.theirs] = (tensor.T if r.transpose else tensor).contiguous()
    return published


def from_published(tensor: Tensor, r: Rule, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """One published tensor as ours; raises ValueError that says both shapes when they disagree."""
    wanted = list(shapes[r.ours[0]])
    wanted[0] = sum(shapes[name][0] for name in r.ours)
    stored = wanted[::-1] if r.transpose else wanted
    if list(tensor.shape) != stored:
        raise ValueError(f"{r.theirs} has shape {list(tensor.shape)}; the configuration calls for {stored}")
    parts = (tensor.T if r.transpose else tensor).split([shapes[name][0] for name in r.ours])
    return dict(zip(r.ours, parts))
