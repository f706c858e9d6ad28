"""GGUF's number formats: plain floats, and blocks of a few hundred bits that share a scale.

Block formats come from ggml (Gerganov, 2022 on; its `ggml-common.h` declares them). A block holds 32 weights, or 256 in
the "K" formats, whose blocks are cut into groups of 16 or 32 with small integer scales of their own:

    weight = d · q                 the symmetric ones (Q4_0, Q5_0, Q8_0, Q3_K, Q6_K)
    weight = d · q + m             with a minimum (Q4_1, Q5_1)
    weight = d · s · q − m · t     K formats with a minimum (Q2_K, Q4_K, Q5_K): s, t are the group's integers

q are 2 to 8 bits, d and m float16. Multi-byte numbers are little-endian. Each decoder below takes n blocks as a numpy
structured array, whose dtype is the layout, and returns (n, weights) float32 in the order of operations of ggml's own
code, so the results are equal to the bit.
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

PIECE = 1 << 17  # weights decoded at once: the temporary arrays stay in the processor's cache


@dataclass(frozen=True)
class BlockType:
    """`weights` of them take `layout.itemsize` bytes; `decode` is None where the layout is the float itself."""

    name: str
    weights: int
    layout: np.dtype
    decode: Callable[[np.ndarray], np.ndarray] | None = None

    def nbytes(self, weights: int) -> int:
        return weights // self.weights * self.layout.itemsize


def planes(q: np.ndarray, groups: int, shifts: tuple[int, ...], mask: int) -> np.ndarray:
    """Small integers packed side by side in bytes, as (n, weights) uint8.

    `q` (n, bytes) is cut into `groups` runs; of each run first all the bits at shifts[0], then those at shifts[1], ….
    """
    q = q.reshape(len(q), groups, 1, -1)
    return ((q >> np.array(shifts, np.uint8)[:, None]) & np.uint8(mask)).reshape(len(q), -1)


def _float(column: np.ndarray) -> np.ndarray:
    """(n,) float16 → (n, 1) float32."""
    return column.astype(np.float32)[:, None]


def _scaled(q: np.ndarray, scale: np.ndarray, minimum: np.ndarray | None = None) -> np.ndarray:
    """q · scale (− minimum): `q` (n, weights) integers, `scale` and `minimum` (n, groups) float32."""
    weights = q.reshape(*scale.shape, -1).astype(np.float32)  # (n, groups, weights of a group)
    weights *= scale[..., None]
    if minimum is not None:
        weights -= minimum[..., None]
    return weights.reshape(len(q), -1)


# Blocks of 32 weights. Weight i of the first 16 is the low half of byte i, weight 16 + i the high half.


def _q4_0(b: np.ndarray) -> np.ndarray:
    return _scaled(planes(b["q"], 1, (0, 4), 15).view(np.int8) - np.int8(8), _float(b["d"]))


def _q4_1(b: np.ndarray) -> np.ndarray:
    return _scaled(planes(b["q"], 1, (0, 4), 15), _float(b["d"]), -_float(b["m"]))


def _fifth_bits(b: np.ndarray) -> np.ndarray:
    """Weight i has its fifth bit at place i of the 32 in `high`."""
    return planes(b["q"], 1, (0, 4), 15) | np.unpackbits(b["high"], axis=1, bitorder="little") << np.uint8(4)


def _q5_0(b: np.ndarray) -> np.ndarray:
    return _scaled(_fifth_bits(b).view(np.int8) - np.int8(16), _float(b["d"]))


def _q5_1(b: np.ndarray) -> np.ndarray:
    return _scaled(_fifth_bits(b), _float(b["d"]), -_float(b["m"]))


def _q8_0(b: np.ndarray) -> np.ndarray:
    return _scaled(b["q"], _float(b["d"]))


# Blocks of 256 weights.


def _q2_k(b: np.ndarray) -> np.ndarray:
    """16 groups of 16; a byte of `scales` is a group's scale (low half) and minimum (high half). `q` is two halves of
    32 bytes: in each, the lowest two bits of all 32 bytes are 32 weights, the next two bits the next 32, and so on."""
    scale = _float(b["d"]) * (b["scales"] & 15).astype(np.float32)  # (n, 16)
    minimum = _float(b["m"]) * (b["scales"] >> 4).astype(np.float32)
    return _scaled(planes(b["q"], 2, (0, 2, 4, 6), 3), scale, minimum)


def _q3_k(b: np.ndarray) -> np.ndarray:
    """As Q2_K, and bit j of byte i of `high` is the third bit of weight 32 j + i: where it is 0, 4 is taken off.
    16 scales of 6 bits, less 32: the low four bits as nibbles of 8 bytes, the high two as pairs of bits of 4 bytes."""
    scales = planes(b["scales"][:, :8], 1, (0, 4), 15) | planes(b["scales"][:, 8:], 1, (0, 2, 4, 6), 3) << np.uint8(4)
    scale = _float(b["d"]) * (scales.view(np.int8) - np.int8(32)).astype(np.float32)  # (n, 16)
    low = planes(b["q"], 2, (0, 2, 4, 6), 3).view(np.int8)
    high = planes(b["high"], 1, tuple(range(8)), 1).view(np.int8)
    return _scaled(low + (high << 2) - np.int8(4), scale)


def _scales_and_minima(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """8 scales and 8 minima of 6 bits in 12 bytes, times d and m: (n, 8) float32 each.

    Byte i of the first four is scale i, of the next four minimum i; byte i of the last four holds the low four bits of
    scale 4 + i (low half) and of minimum 4 + i (high half), whose high two bits sit on top of bytes i and 4 + i.
    """
    first, second, third = np.split(b["scales"], 3, axis=1)  # (n, 4) each
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=1)
    minima = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=1)
    return _float(b["d"]) * scales.astype(np.float32), _float(b["m"]) * minima.astype(np.float32)


def _q4_k(b: np.ndarray) -> np.ndarray:
    """8 groups of 32; `q` is four runs of 32 bytes, each with one group as low halves and the next as high halves."""
    return _scaled(planes(b["q"], 4, (0, 4), 15), *_scales_and_minima(b))


def _q5_k(b: np.ndarray) -> np.ndarray:
    """As Q4_K, and bit j of byte i of `high` is the fifth bit of weight i of group j."""
    high = planes(b["high"], 1, tuple(range(8)), 1)
    return _scaled(planes(b["q"], 4, (0, 4), 15) | high << np.uint8(4), *_scales_and_minima(b))


def _q6_k(b: np.ndarray) -> np.ndarray:
    """16 groups of 16 with scales of 8 bits. Two halves of 128 weights: 64 bytes of `q` have the low four bits (all low
    halves, then all high halves), 32 bytes of `high` the upper two (four times 32 weights)."""
    q = planes(b["q"], 2, (0, 4), 15) | planes(b["high"], 2, (0, 2, 4, 6), 3) << np.uint8(4)
    return _scaled(q.view(np.int8) - np.int8(32), _float(b["d"]) * b["scales"].astype(np.float32))


def _bf16(b: np.ndarray) -> np.ndarray:
    """A float32's upper half."""
    return (b.astype(np.uint32) << 16).view(np.float32)[:, None]


def _f16(b: np.ndarray) -> np.ndarray:
    return _float(b)


def _layout(**fields) -> np.dtype:
    """The fields of a block in the file's order: a numpy type, or (type, count)."""
    return np.dtype([(name, *kind) if isinstance(kind, tuple) else (name, kind) for name, kind in fields.items()])


_HALF = "<f2"
TYPES: dict[int, BlockType] = {  # by ggml's number
    0: BlockType("F32", 1, np.dtype("<f4")),
    1: BlockType("F16", 1, np.dtype(_HALF), _f16),
    30: BlockType("BF16", 1, np.dtype("<u2"), _bf16),
    2: BlockType("Q4_0", 32, _layout(d=_HALF, q=("u1", 16)), _q4_0),
    3: BlockType("Q4_1", 32, _layout(d=_HALF, m=_HALF, q=("u1", 16)), _q4_1),
    6: BlockType("Q5_0", 32, _layout(d=_HALF, high=("u1", 4), q=("u1", 16)), _q5_0),
    7: BlockType("Q5_1", 32, _layout(d=_HALF, m=_HALF, high=("u1", 4), q=("u1", 16)), _q5_1),
    8: BlockType("Q8_0", 32, _layout(d=_HALF, q=("i1", 32)), _q8_0),
    10: BlockType("Q2_K", 256, _layout(scales=("u1", 16), q=("u1", 64), d=_HALF, m=_HALF), _q2_k),
    11: BlockType("Q3_K", 256, _layout(high=("u1", 32), q=("u1", 64), scales=("u1", 12), d=_HALF), _q3_k),
    12: BlockType("Q4_K", 256, _layout(d=_HALF, m=_HALF, scales=("u1", 12), q=("u1", 128)), _q4_k),
    13: BlockType("Q5_K", 256, _layout(d=_HALF, m=_HALF, scales=("u1", 12), high=("u1", 32), q=("u1", 128)), _q5_k),
    14: BlockType("Q6_K", 256, _layout(q=("u1", 128), high=("u1", 64), scales=("i1", 16), d=_HALF), _q6_k),
}


def decode(data: np.ndarray, kind: BlockType, out: np.ndarray | None = None) -> np.ndarray:
    """The weights in `data` (bytes, uint8) as a flat float32 array, written into `out` where given.

    Works in pieces, on all processors, so it takes the result's memory and no more than a few pieces beside it.
    """
    blocks = data.view(kind.layout)
    if out is None:
        out = np.empty(len(blocks) * kind.weights, np.float32)
    if kind.decode is None:
        out[:] = blocks
        return out
    rows, step = out.reshape(-1, kind.weights), PIECE // kind.weights

    def piece(at: int) -> None:
        with np.errstate(all="ignore"):  # a scale may be infinite; that is the file's business
            rows[at : at + step] = kind.decode(blocks[at : at + step])

    starts = range(0, len(blocks), step)
    if len(starts) > 1 and _processors() > 1:
        list(_workers(os.getpid()).map(piece, starts))
    else:
        for at in starts:
            piece(at)
    return out


def _processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _workers(process: int) -> ThreadPoolExecutor:
    """Threads of this process (a fork has none of its parent's); numpy lets them run at once."""
    return ThreadPoolExecutor(min(_processors(), 8))
