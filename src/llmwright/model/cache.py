"""Keys and values of the positions already seen, so that generating a token costs one position's work.

Room for `capacity` positions is taken once; `append` writes at the end and returns views, copying nothing that is
there. A decoder that reads an encoder's states keeps their keys and values too, in a `Memory`.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .config import ModelConfig

ROOM = 512  # positions of memory that are taken at a time, where a text may grow


class KVCache:
    """`keys`, `values`: one (B, capacity, K, C) tensor a layer. `length`: positions held, the same in every layer."""

    paged = False

    def __init__(self, config: ModelConfig, batch: int, capacity: int, dtype=torch.float32, device="cpu"):
        a = config.attention
        shape = (config.n_layers, batch, capacity, a.n_kv_heads, a.head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.n_layers, self.capacity, self.length = config.n_layers, capacity, 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add `k`, `v` (B, T, K, C) of one layer; returns all of that layer, (B, S, K, C)."""
        start, end = self.length, self.length + k.shape[1]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} positions; {end} are needed")
        self.keys[layer, :, start:end] = k
        self.values[layer, :, start:end] = v
        if layer == self.n_layers - 1:
            self.length = end
        return self.keys[layer, :, :end], self.values[layer, :, :end]

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in this order; a row may come several times."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]

    def reserve(self, capacity: int) -> None:
        """Make room for so many positions; those held stay."""
        if capacity <= self.capacity:
            return
        grown = [held.new_empty(*held.shape[:2], capacity, *held.shape[3:]) for held in (self.keys, self.values)]
        for new, held in zip(grown, (self.keys, self.values)):
            new[:, :, : self.length] = held[:, :, : self.length]
        (self.keys, self.values), self.capacity = grown, capacity

    def grow(self, needed: int, most: int) -> None:
        """Make room for `needed` positions where there is none, and for some of those that come next, up to `most`."""
        if needed > self.capacity:
            self.reserve(min(needed + max(ROOM, needed // 2), max(needed, most)))

    def shorten(self, length: int) -> None:
        """Forget the positions from `length` on."""
        self.length = min(self.length, length)

    def reorder(self, rows: Tensor, start: int = 0) -> None:
        """From position `start` on, row i holds what row `rows[i]` held; the rows are as many as before. Copies only
        what is there."""
        for held in (self.keys, self.values):
            part = held[:, :, start : self.length]
            part.copy_(part[:, rows])

    def take(self, places: Tensor) -> None:
        """Of the positions held, each row keeps those at its `places` (B, S), in this order."""
        S = places.shape[1]
        wanted = places[:, :, None, None]  # (B, S, 1, 1)
        for held in (*self.keys, *self.values):  # (B, capacity, K, C)
            held[:, :S] = held.gather(1, wanted.expand(-1, -1, *held.shape[2:]))
        self.length = S


@dataclass
class Memory:
    """What an encoder made of a source: `states` (B, S, D), and `mask`, (B, 1, 1, S) bool, where a source is shorter
    than its row. In generation (`keep`) each decoder layer's keys and values of it, (B, S, K, C), are computed once."""

    states: Tensor
    mask: Tensor | None = None
    keep: bool = False
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in this order; a row may come several times."""
        self.states = self.states[rows]
        self.mask = None if self.mask is None else self.mask[rows]
        self.kept = {layer: (k[rows], v[rows]) for layer, (k, v) in self.kept.items()}
