"""From llama.cpp's names for weights to the published ones, and back.

llama.cpp names weights its own way (`blk.0.attn_q.weight`), and its converter changes some: it turns the rows of query
and key so that the two channels of a rotary pair are neighbours (Llama), adds the 1 that Gemma's norms add later,
transposes GPT-2's matrices, and puts all queries before all keys and values where a family interleaves them. Each such
change is a `Change` with its inverse; `gguf_architectures.py` has the tables.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import RequestError
from . import gguf_rope
from .gguf_file import Entry, GGUFFile
from .weights import Stored


MOST_EXPERTS = 4096


@dataclass(frozen=True)
class Change:
    """`do` makes of a published tensor the one in the file, `undo` the reverse. Both take (tensor, config.json)."""

    do: Callable[[Tensor, dict], Tensor]
    undo: Callable[[Tensor, dict], Tensor]


def pairs(heads: str) -> Change:
    """A head's rows: the published order has the first channels of all rotary pairs, then the second ones; the file has
    pair after pair. `heads`: where config.json says how many heads there are."""

    def do(t, c):
        return t.view(c[heads], 2, -1, *t.shape[1:]).transpose(1, 2).reshape(t.shape)

    def undo(t, c):
        return t.view(c[heads], -1, 2, *t.shape[1:]).transpose(1, 2).reshape(t.shape)

    return Change(do, undo)


def grouped(heads: str, kv_heads: str) -> Change:
    """The rows of query, key and value in one: published for each key-value head its queries, its key, its value (K
    groups of H/K + 2 heads); in the file all queries, all keys, all values."""

    def sizes(c):
        return c[kv_heads], c[heads] // c[kv_heads]

    def do(t, c):
        k, per = sizes(c)
        return torch.cat([part.flatten(0, 2) for part in t.unflatten(0, (k, per + 2, -1)).split([per, 1, 1], dim=1)])

    def undo(t, c):
        k, per = sizes(c)
        parts = t.unflatten(0, (k * (per + 2), -1)).split([k * per, k, k])
        return torch.cat([part.unflatten(0, (k, -1)) for part in parts], dim=1).flatten(0, 2)

    return Change(do, undo)


@dataclass(frozen=True)
class Architecture:
    """`keys`: metadata below the architecture's name → config.json, the sizes and rates. `names`: the file's weights →
    the published ones, without ".weight" and ".bias"; {i} is the layer, {e} an expert, of which the file has all in one
    tensor. (Falcon's depend on how many norms a layer has: then a function of that.) `changes`: by the file's name.
    `config` and `metadata` give what is not the same number under another key. `fixed`: values of config.json that
    llama.cpp takes for granted.
    """

    families: tuple[str, ...]  # model_type of config.json
    keys: dict[str, str]
    names: dict[str, str] | Callable[[bool], dict[str, str]]
    config: Callable[[GGUFFile, dict], dict]
    metadata: Callable[[dict], dict] = lambda c: {}
    changes: dict[str, Change] = field(default_factory=dict)
    fixed: dict[str, tuple] = field(default_factory=dict)

    def names_of(self, c: dict) -> dict[str, str]:
        return self.names(c["num_ln_in_parallel_attn"] == 2) if callable(self.names) else self.names


def published(gguf: GGUFFile, architecture: Architecture, c: dict) -> list[Stored]:
    """The file's weights under their published names; a weight with no such name keeps its own."""
    patterns = [(_pattern(stem), stem, theirs) for stem, theirs in architecture.names_of(c).items()]
    found = []
    for entry in gguf.tensors.values():
        if entry.name == gguf_rope.FACTORS:
            continue
        base, _, kind = entry.name.rpartition(".")
        for pattern, stem, theirs in patterns:
            if match := pattern.fullmatch(base):
                name = f"{theirs.replace('{i}', match[1] if match.lastindex else '')}.{kind}"
                change = architecture.changes.get(stem)
                # an expert each, where there are as many as config.json says; else the shape says what is wrong
                several = "{e}" in name and entry.shape[0] == c.get("num_local_experts") <= MOST_EXPERTS
                parts = entry.parts() if several else [entry]
                found += [_stored(name.replace("{e}", str(e)), part, change, c) for e, part in enumerate(parts)]
                break
        else:
            found.append(_stored(entry.name, entry, None, c))
    return found


def _pattern(stem: str) -> re.Pattern:
    return re.compile(re.escape(stem).replace(re.escape("{i}"), r"(0|[1-9]\d*)"))


def _stored(name: str, entry: Entry, change: Change | None, c: dict) -> Stored:
    shape, read = entry.shape, entry.read
    if change is not None:
        try:
            shape = tuple(change.undo(torch.empty(entry.shape, device="meta"), c).shape)
        except RuntimeError:  # it does not even divide; the shape itself says what is wrong
            change = None
        else:
            def read(dtype: torch.dtype) -> Tensor:
                return change.undo(entry.read(dtype), c)
    return Stored(name, shape, entry.kind.name, entry.file.path, True, read, entry.forget)


@dataclass(frozen=True)
class Place:
    """Where published weights go in the file: one, or a layer's experts, and what is changed on the way."""

    name: str
    published: tuple[str, ...]
    change: Change | None

    def make(self, weights: list[Tensor], c: dict) -> Tensor:
        if self.change:
            weights = [self.change.do(t, c) for t in weights]
        return weights[0] if len(weights) == 1 else torch.stack(weights)


def places(names: Iterable[str], architecture: Architecture, c: dict) -> list[Place]:
    """The places of the published `names`, in the order of the layers. RequestError for a weight that has none."""
    left, found = dict.fromkeys(names), []
    layers = c.get("num_hidden_layers") or c.get("n_layer")
    stems = architecture.names_of(c).items()
    once, each = ({stem: name for stem, name in stems if ("{i}" in stem) == layer} for layer in (False, True))
    for i, names in [(None, once), *((i, each) for i in range(layers))]:
        for stem, theirs in names.items():
            for kind in ("weight", "bias"):
                name = f"{theirs.replace('{i}', str(i))}.{kind}"
                experts = range(c.get("num_local_experts") or 0) if "{e}" in name else (0,)
                parts = tuple(name.replace("{e}", str(e)) for e in experts)
                if parts and all(part in left for part in parts):
                    for part in parts:
                        left.pop(part)
                    found.append(Place(f"{stem.replace('{i}', str(i))}.{kind}", parts, architecture.changes.get(stem)))
    if left:
        raise RequestError(f"llama.cpp has no place for the weight {next(iter(left))}")
    return found
