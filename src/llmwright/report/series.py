"""Metrics as curves: one value a step, thinned to what a screen can show.

Thinning keeps the lowest and the highest point of every stretch (Jugel et al. 2014, "M4"), so a spike of one step in a
million survives, which a plain stride would lose.
"""

import itertools
import math

import numpy as np


def number(value) -> float:
    """`value` as a float; what is absent, null or no number becomes NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    return float(value)


def column(lines: list[dict], key: str, x: str = "step") -> tuple[np.ndarray, np.ndarray]:
    """The finite values of `key` and where they stand: two float64 arrays of equal length."""
    points = [(number(line.get(x)), number(line[key])) for line in lines if key in line]
    table = np.array(points, dtype=np.float64).reshape(-1, 2)
    table = table[np.isfinite(table).all(axis=1)]
    return table[:, 0], table[:, 1]


def thin(y: np.ndarray, limit: int = 1200) -> np.ndarray:
    """Indices, ascending, of at most `limit` points of `y`: the first, the last, and of each stretch the extremes."""
    if len(y) <= limit:
        return np.arange(len(y))
    edges = np.linspace(0, len(y), max(1, (limit - 2) // 2) + 1).astype(int)
    keep = {0, len(y) - 1}
    for start, end in itertools.pairwise(edges):
        keep.add(start + int(np.argmin(y[start:end])))
        keep.add(start + int(np.argmax(y[start:end])))
    return np.array(sorted(keep))


def smooth(y: np.ndarray, window: int) -> np.ndarray:
    """The centred mean over `window` points: same length, no lag.

    At the start the window is as short before a point as after it, since a loss falls too steeply there for anything
    else; at the end it only loses the points that are not there yet.
    """
    if window <= 1 or len(y) < 3:
        return y
    total = np.concatenate([[0.0], np.cumsum(y)])
    centre = np.arange(len(y))
    half = np.minimum(window // 2, centre)
    low, high = centre - half, np.minimum(centre + half + 1, len(y))
    return (total[high] - total[low]) / (high - low)
