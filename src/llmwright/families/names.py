"""Weight names, both ways.

A family lists `Rule`s: which of a published file's tensors is made of which of ours. One published tensor may hold
several of ours, one after another along the output dimension (GPT-2's c_attn holds query, key and value) or in an order
of its own, and may be stored transposed (GPT-2's Conv1D).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """`theirs` = `join` of `ours`, then transposed where `transpose`. `split` is the inverse of `join`; by default they
    concatenate along dimension 0 and take apart. Where they are given, what they do is said in the family's file."""

    theirs: str
    ours: tuple[str, ...]
    transpose: bool = False
    join: Callable[[list[Tensor]], Tensor] | None = None
    split: Callable[[Tensor], list[Tensor]] | None = None


def rule(theirs: str, *ours: str, transpose: bool = False, join=None, split=None) -> Rule:
    return Rule(theirs, ours, transpose, join, split)


def to_published(state: dict[str, Tensor], rules: Iterable[Rule]) -> dict[str, Tensor]:
    """Our weights under the published names. A tensor that needs no change is not copied, unless two names have it: a
    file holds each for itself."""
    published, used = {}, set()
    for r in rules:
        parts = [state[name] for name in r.ours]
        if r.join:
            tensor = r.join(parts)
        else:
            tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
            tensor = tensor.clone() if used & set(r.ours) else tensor
        used |= set(r.ours)
        published[r.theirs] = (tensor.T if r.transpose else tensor).contiguous()
    return published


def from_published(tensor: Tensor, r: Rule, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """One published tensor as ours; raises ValueError that says both shapes when they disagree."""
    wanted = list(published_shape(r, shapes))
    if list(tensor.shape) != wanted:
        raise ValueError(f"{r.theirs} has shape {list(tensor.shape)}; the configuration calls for {wanted}")
    tensor = tensor.T if r.transpose else tensor
    parts = r.split(tensor) if r.split else tensor.split([shapes[name][0] for name in r.ours])
    return dict(zip(r.ours, parts, strict=True))


def published_shape(r: Rule, shapes: dict[str, torch.Size]) -> torch.Size:
    """The shape that `theirs` has, from the shapes of `ours`."""
    if r.join:
        with torch.device("meta"):
            shape = r.join([torch.empty(shapes[name]) for name in r.ours]).shape
    else:
        shape = torch.Size([sum(shapes[name][0] for name in r.ours), *shapes[r.ours[0]][1:]])
    return shape[::-1] if r.transpose else shape
