"""A random order that is computed, not stored.

`permuted` is a pseudo-random permutation of 0..n-1 given by a key: a Feistel network (Luby & Rackoff 1988) over the
next even power of two, walked until the value falls below n (Black & Rogaway 2002, "cycle walking"). Any part of the
order can be asked for alone, so shuffling a corpus of any size takes no memory, and a cursor into the order is one
integer. It is our own arithmetic and not numpy's generators, whose streams may change between versions: a run must
resume in the same order years later.
"""

import numpy as np

_MASK = (1 << 64) - 1
_ROUNDS = 6
_GOLDEN, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key(*parts: int) -> int:
    """A 64-bit key from small integers (seed, epoch, …)."""
    value = 0
    for part in parts:
        value = (value ^ part) * _GOLDEN + 1 & _MASK
        value = int(mix(np.array([value], np.uint64), part)[0])
    return value


def mix(values: np.ndarray, key: int) -> np.ndarray:
    """A 64-bit hash of each value (the finalizer of splitmix64, Steele, Lea & Flood 2014). uint64 in and out."""
    x = values.astype(np.uint64) + np.uint64((key + _GOLDEN) & _MASK)  # unsigned arrays wrap around, as wanted
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX1)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX2)
    return x ^ (x >> np.uint64(31))


def permuted(index: np.ndarray, n: int, key: int) -> np.ndarray:
    """Where each position of `index` (any shape, values in 0..n-1) goes in the key's order of 0..n-1. int64."""
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    low = np.uint64((1 << half) - 1)
    shift = np.uint64(half)

    def scramble(x):
        left, right = x >> shift, x & low
        for step in range(_ROUNDS):
            left, right = right, left ^ (mix(right, key + step * _MIX1) & low)
        return left << shift | right

    out = scramble(np.asarray(index).astype(np.uint64))
    while (outside := out >= n).any():
        out[outside] = scramble(out[outside])
    return out.astype(np.int64)
