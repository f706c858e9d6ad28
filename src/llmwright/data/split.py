"""Which text is for training, which for validation, which for the test.

`hash` puts whole documents by a stable hash of their clean text: the same document always goes to the same part,
whatever else the corpus holds. `tail` cuts each document, in the order train, validation, test: the convention of
corpora that are one long text (the last 10 % of tinyshakespeare).
"""

import numpy as np

PARTS = ("train", "val", "test")


def by_hash(digests: np.ndarray, fractions: tuple[float, float, float]) -> np.ndarray:
    """The part (0, 1, 2) of each document from the first half of its hash: (N,) uint64 → (N,) uint8."""
    place = (digests >> np.uint64(11)).astype(np.float64) / 2.0**53  # in [0, 1)
    train, val, test = fractions
    ends = (train if val or test else 1.0, train + val if test else 1.0)  # rounding leaves nothing for an empty part
    return (place >= ends[0]).astype(np.uint8) + (place >= ends[1]).astype(np.uint8)


def by_tail(text: str, fractions: tuple[float, float, float]) -> tuple[str, str, str]:
    """The three parts of one document; the first is `text[:int(fraction · len(text))]`, as is the convention."""
    train, val, test = fractions
    first = len(text) if not (val or test) else int(train * len(text))
    second = int((train + val) * len(text)) if test else len(text)
    return text[:first], text[first:second], text[second:]
