"""Keys and values in blocks that lie anywhere (Kwon et al. 2023): the cache of an engine that writes many texts at once.

A step computes some tokens of several texts, all in one row: `ids` (1, N). `Placement` says of each token which text it
is of and where it stands there; who gets which block is for the caller to decide (`engine.blocks`).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import kernels
from .cache import KVCache
from .config import ModelConfig


@dataclass(frozen=True)
class Placement:
    """The N tokens of a step, those of one text side by side and in order.

    `tables` (R, M) int32: the blocks of each text; what is beyond its last block is not looked at. `rows` (N,) int32: the
    text of each token. `positions` (N,) int32: where it stands in it. `slots` (N,) int64: where its keys and values are
    written, block · size + place.
    """

    tables: Tensor
    rows: Tensor
    positions: Tensor
    slots: Tensor


class PagedCache:
    """`keys`, `values`: (n_layers, n_blocks, size, K, C). `placement` has to be set before each step."""

    paged = True
    length = 0  # where positions go on is told with each step

    def __init__(self, config: ModelConfig, n_blocks: int, size: int, dtype=torch.float32, device="cpu"):
        a = config.attention
        shape = (config.n_layers, n_blocks, size, a.n_kv_heads, a.head_dim)
        self.keys, self.values = (zeros(shape, dtype, device) for _ in range(2))
        self.placement: Placement | None = None

    @staticmethod
    def block_bytes(config: ModelConfig, size: int, dtype=torch.float32) -> int:
        """What a block of `size` positions takes in all layers."""
        a = config.attention
        return 2 * config.n_layers * size * a.n_kv_heads * a.head_dim * dtype.itemsize

    def copy(self, pairs: list[tuple[int, int]]) -> None:
        """What is in the first block of each pair comes into the second too."""
        if pairs:
            a, b = torch.tensor(pairs, device=self.keys.device).T
            self.keys[:, b], self.values[:, b] = self.keys[:, a], self.values[:, a]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, **how) -> Tensor:
        """Write `k`, `v` (B, T, K, C) of the step's N = B·T tokens; each of the queries `q` (B, T, H, C) then looks at its
        text up to itself. Returns (B, T, H, C). how: as for `kernels.paged_attention`."""
        p = self.placement
        for held, new in ((self.keys[layer], k), (self.values[layer], v)):
            held.view(-1, *held.shape[2:]).index_copy_(0, p.slots, new.flatten(0, 1).to(held.dtype))
        keys, values = self.keys[layer], self.values[layer]
        return kernels.paged_attention(q.flatten(0, 1), keys, values, p.tables, p.rows, p.positions, **how).view(q.shape)


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device) -> Tensor:
    """As torch.zeros; on a CPU its memory is not taken from the machine before something is written there."""
    if torch.device(device).type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)


class RowCache(KVCache):
    """A row for each text, all of one length, read as blocks are: a row is one large block. So texts that are written
    without the engine are computed as the engine's are. `place` has to be called before each step."""

    paged = True
    attend = PagedCache.attend

    def place(self, T: int) -> None:
        """Each text gets T positions more."""
        B, start, device = self.keys.shape[1], self.length, self.keys.device
        rows = torch.arange(B, dtype=torch.int32, device=device)
        positions = torch.arange(start, start + T, dtype=torch.int32, device=device).repeat(B)
        which = rows.repeat_interleave(T)
        self.placement = Placement(rows[:, None], which, positions, which.long() * self.capacity + positions)
        self.length = start + T
