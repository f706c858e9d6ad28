"""Hashes of every window of a sequence, in a few vector operations (Karp & Rabin 1987).

With an odd base b, the prefix sums S[i] = Σ_{j<i} v[j]·bʲ modulo 2⁶⁴ give the hash of v[s:e] as (S[e] − S[s])·b⁻ˢ:
an odd number has an inverse modulo 2⁶⁴, and unsigned arithmetic wraps by itself. A final mix spreads the bits, since
the low bits of a polynomial modulo a power of two depend on the low bits of its terms only.
"""

import functools

import numpy as np

_BASE = 0x9E3779B97F4A7C15 | 1
_LIMIT = 1 << 19  # elements at a time, so the tables of powers stay small


@functools.cache
def _powers() -> tuple[np.ndarray, np.ndarray]:
    def table(base):
        steps = np.full(_LIMIT + 1, base, np.uint64)
        steps[0] = 1
        return np.cumprod(steps, dtype=np.uint64)

    return table(_BASE), table(pow(_BASE, -1, 1 << 64))


def mix(h: np.ndarray) -> np.ndarray:
    """Stafford's finalizer of splitmix64: every bit of the result depends on every bit of `h`."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def _prefix_sums(values: np.ndarray) -> np.ndarray:
    sums = np.empty(len(values) + 1, np.uint64)
    sums[0] = 0
    # + 1: a zero must count, or windows that differ in trailing zeros only would be equal
    np.cumsum((values.astype(np.uint64) + np.uint64(1)) * _powers()[0][: len(values)], out=sums[1:])
    return sums


def window_hashes(values: np.ndarray, n: int) -> np.ndarray:
    """uint64 hash of values[i:i+n] for every i: shape (max(0, len(values) − n + 1),). `values`: integers ≥ 0."""
    count = max(0, len(values) - n + 1)
    out = np.empty(count, np.uint64)
    step = _LIMIT - n
    for at in range(0, count, step):
        end = min(at + step, count)
        sums = _prefix_sums(values[at : end + n - 1])
        out[at:end] = mix((sums[n:] - sums[:-n]) * _powers()[1][: end - at])
    return out


def span_hashes(values: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """uint64 hash of values[starts[i]:ends[i]] for every i. At most 2¹⁹ values."""
    sums = _prefix_sums(values)
    return mix((sums[ends] - sums[starts]) * _powers()[1][starts])
