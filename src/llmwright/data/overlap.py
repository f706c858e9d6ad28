"""Training documents that repeat the evaluation text, found and removed.

A training document that shares `n` tokens in a row with a validation or test document is dropped, so that the
measured loss is not of text learned by heart (Brown et al. 2020, appendix C, with n = 13). As there, an n-gram that
occurs in more than 10 training documents is taken for boilerplate (a licence, an idiom) and decides nothing.

Every window of the evaluation text goes to a file as a 64-bit hash and into a blocked Bloom filter (Bloom 1970; Putze
et al. 2007: all bits of a key in one word) that the workers share. Training windows that pass the filter are
candidates, checked against the file at the end, part by part: memory does not grow with the text.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .rolling import window_hashes

COMMON = 10  # an n-gram in more training documents than this is boilerplate
MOST_WORDS = 1 << 25  # of the filter: 256 MB
_CHUNK = 1 << 20  # hashes at a time
_PART = 1 << 21  # candidates resolved at a time
HIT = np.dtype([("hash", "<u8"), ("document", "<i8"), ("at", "<i8")])


def inside_documents(lengths: np.ndarray, n: int) -> np.ndarray:
    """Which windows of n tokens lie inside one of the documents that follow one another, its first token (the
    beginning-of-text id) left out: (Σ lengths − n + 1,) bool."""
    ends = np.cumsum(lengths)
    inside = np.ones(int(ends[-1]) if len(ends) else 0, bool)
    inside[ends - lengths] = False
    for k in range(1, n):
        inside[ends - np.minimum(k, lengths)] = False
    return inside[: max(0, len(inside) - n + 1)]


def evaluation_hashes(tokens: np.ndarray, lengths: np.ndarray, n: int) -> np.ndarray:
    """The hashes of all n-grams inside these documents, uint64."""
    return window_hashes(tokens, n)[inside_documents(lengths, n)]


def _bits(hashes: np.ndarray, words: int) -> tuple[np.ndarray, np.ndarray]:
    """The filter's word (the hash's top bits) and the three bits in it (its low ones) of each hash."""
    one, low = np.uint64(1), np.uint64(63)
    bits = one << (hashes & low)
    bits |= one << ((hashes >> np.uint64(6)) & low)
    bits |= one << ((hashes >> np.uint64(12)) & low)
    return (hashes >> np.uint64(64 - (words.bit_length() - 1))).astype(np.int64), bits


def build_filter(hashes: Path, out: Path) -> None:
    """Write the Bloom filter of the uint64 hashes in the file `hashes`: about 16 bits a hash, up to 256 MB."""
    count = hashes.stat().st_size // 8
    words = min(max(1 << max(count // 4, 1).bit_length(), 1 << 10), MOST_WORDS)
    table = np.zeros(words, np.uint64)
    for chunk in _chunks(hashes):
        chunk = np.sort(chunk)  # equal words become neighbours: one write each, in memory order
        where, bits = _bits(chunk, words)
        firsts = np.flatnonzero(np.concatenate([[True], where[1:] != where[:-1]]))
        table[where[firsts]] |= np.bitwise_or.reduceat(bits, firsts)
    table.tofile(out)


def may_contain(table: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Whether each hash may be in the filter: never False for one that is."""
    where, bits = _bits(hashes, len(table))
    return (table[where] & bits) == bits


def candidates(table: np.ndarray, tokens: np.ndarray, lengths: np.ndarray, n: int, documents: np.ndarray) -> np.ndarray:
    """HIT rows (hash, document number, position) of the windows that may be in the evaluation text, each hash once a
    document. `documents`: the number of each document."""
    hashes = window_hashes(tokens, n)
    maybe = np.flatnonzero(may_contain(table, hashes) & inside_documents(lengths, n))
    starts = np.cumsum(lengths) - lengths
    document = np.searchsorted(starts, maybe, "right") - 1
    hits = np.empty(len(maybe), HIT)
    hits["hash"], hits["document"], hits["at"] = hashes[maybe], documents[document], maybe - starts[document]
    order = np.lexsort((hits["at"], hits["hash"], hits["document"]))
    hits = hits[order]
    fresh = np.ones(len(hits), bool)
    fresh[1:] = (hits["hash"][1:] != hits["hash"][:-1]) | (hits["document"][1:] != hits["document"][:-1])
    return hits[fresh]


def resolve(hits: Path, hashes: Path, n_documents: int) -> np.ndarray:
    """Where each training document first repeats the evaluation text: (n_documents,) int64 position in its tokens,
    −1 where it does not.

    `hits` holds the candidates, `hashes` those of the evaluation text. Both are read once for every two million
    candidates, and the candidates are divided by hash, so that the documents of an n-gram are counted together.
    """
    first = np.full(n_documents, np.iinfo(np.int64).max)
    parts = 1 << max(0, (hits.stat().st_size // HIT.itemsize // _PART)).bit_length()
    shift = np.uint64(64 - (parts.bit_length() - 1)) if parts > 1 else None
    for part in range(parts):
        mine = [c if shift is None else c[c["hash"] >> shift == part] for c in _chunks(hits, HIT)]
        rows = np.concatenate([*mine, np.empty(0, HIT)])
        known, of, count = np.unique(rows["hash"], return_inverse=True, return_counts=True)
        if not len(known):
            continue
        real = np.zeros(len(known), bool)
        for chunk in _chunks(hashes):
            if shift is not None:
                chunk = chunk[chunk >> shift == part]
            place = np.minimum(np.searchsorted(known, chunk), len(known) - 1)
            real[place[known[place] == chunk]] = True
        rows = rows[(real & (count <= COMMON))[of]]
        np.minimum.at(first, rows["document"], rows["at"])
    return np.where(first == np.iinfo(np.int64).max, -1, first)


def _chunks(path: Path, dtype=np.dtype(np.uint64)) -> Iterator[np.ndarray]:
    with open(path, "rb") as file:
        while len(chunk := np.fromfile(file, dtype, _CHUNK)):
            yield chunk
