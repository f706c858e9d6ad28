"""Training documents that repeat the evaluation text, found and removed.

A training document that shares `n` tokens in a row with a validation or test document is dropped, so that the
measured loss is not of text learned by heart (Brown et al. 2020, appendix C, with n = 13). As there, the tokens are
words, lower-cased and without punctuation, whatever the tokenizer: 13 of a small vocabulary's tokens are half a line
of source code, which most files share with some other. And as there, an n-gram that occurs in more than 10 training
documents is taken for boilerplate (a licence, an idiom) and decides nothing.

Every window of the evaluation text goes to a file as a 64-bit hash and into a blocked Bloom filter (Bloom 1970; Putze
et al. 2007: all bits of a key in one word) that the workers share. Training windows that pass the filter are
candidates, checked against the file at the end, one range of hashes after another: memory does not grow with the text.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .rolling import window_hashes
from .words import word_hashes

COMMON = 10  # an n-gram in more training documents than this is boilerplate
MOST_WORDS = 1 << 25  # of the filter: 256 MB
_CHUNK = 1 << 20  # hashes at a time
_RANGE = 1 << 25  # bytes resolved at a time
HASH = np.dtype([("hash", "<u8")])
HIT = np.dtype([("hash", "<u8"), ("document", "<u4"), ("at", "<u4")])


def inside_documents(lengths: np.ndarray, n: int) -> np.ndarray:
    """Which windows of n words lie inside one of the documents that follow one another: (Σ lengths − n + 1,) bool."""
    ends = np.cumsum(lengths)
    inside = np.ones(int(ends[-1]) if len(ends) else 0, bool)
    for k in range(1, n):
        inside[(ends - k)[lengths >= k]] = False
    return inside[: max(0, len(inside) - n + 1)]


class Runs:
    """A file of rows with a hash, written in batches that are sorted by it, so that a range of hashes can be read."""

    bins = 256

    def __init__(self, path: Path, dtype: np.dtype):
        self.path, self.dtype, self.rows = path, dtype, 0
        self._file = open(path, "wb")
        self._bounds: list[np.ndarray] = []  # for each batch, the first row of each bin, and the end

    def add(self, rows: np.ndarray) -> None:
        inner = np.searchsorted(rows["hash"], np.arange(1, self.bins, dtype=np.uint64) << np.uint64(56))
        self._bounds.append(self.rows + np.concatenate([[0], inner, [len(rows)]]))
        self._file.write(rows.tobytes())
        self.rows += len(rows)

    def close(self) -> None:
        self._file.close()

    @property
    def bytes(self) -> int:
        return self.rows * self.dtype.itemsize

    def read(self, first: int, last: int) -> np.ndarray:
        """All rows of the bins `first` to `last`, the latter left out."""
        out = [np.empty(0, self.dtype)]
        with open(self.path, "rb", buffering=0) as file:
            for bounds in self._bounds:
                if bounds[last] > bounds[first]:
                    file.seek(int(bounds[first]) * self.dtype.itemsize)
                    out.append(np.fromfile(file, self.dtype, int(bounds[last] - bounds[first])))
        return np.concatenate(out)


def evaluation_hashes(texts: list[bytes], n: int) -> np.ndarray:
    """HASH rows of all n-grams inside these documents, sorted."""
    words, lengths = word_hashes(texts)
    return np.sort(window_hashes(words, n)[inside_documents(lengths, n)]).view(HASH)


def _bits(hashes: np.ndarray, words: int) -> tuple[np.ndarray, np.ndarray]:
    """The filter's word (the hash's top bits) and the three bits in it (its low ones) of each hash."""
    one, low = np.uint64(1), np.uint64(63)
    bits = one << (hashes & low)
    bits |= one << ((hashes >> np.uint64(6)) & low)
    bits |= one << ((hashes >> np.uint64(12)) & low)
    return (hashes >> np.uint64(64 - (words.bit_length() - 1))).astype(np.int64), bits


def build_filter(evaluation: Runs, out: Path) -> None:
    """Write the Bloom filter of the hashes in `evaluation`: 16 to 32 bits a hash, at most 256 MB in all."""
    words = min(max(1 << max(evaluation.rows // 4, 1).bit_length(), 1 << 10), MOST_WORDS)
    table = np.zeros(words, np.uint64)
    for chunk in _chunks(evaluation.path):
        chunk = np.sort(chunk)  # equal words become neighbours: one write each, in memory order
        where, bits = _bits(chunk, words)
        firsts = np.flatnonzero(np.concatenate([[True], where[1:] != where[:-1]]))
        table[where[firsts]] |= np.bitwise_or.reduceat(bits, firsts)
    table.tofile(out)


def may_contain(table: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Whether each hash may be in the filter: never False for one that is."""
    where, bits = _bits(hashes, len(table))
    return (table[where] & bits) == bits


def candidates(table: np.ndarray, texts: list[bytes], n: int, numbers: np.ndarray) -> np.ndarray:
    """HIT rows (hash, document number, position in words), sorted, of the windows that may be in the evaluation text,
    each hash once a document. `numbers`: those of the documents."""
    words, lengths = word_hashes(texts)
    hashes = window_hashes(words, n)
    maybe = np.flatnonzero(may_contain(table, hashes) & inside_documents(lengths, n))
    starts = np.cumsum(lengths) - lengths
    document = np.searchsorted(starts, maybe, "right") - 1
    hits = np.empty(len(maybe), HIT)
    hits["hash"], hits["document"], hits["at"] = hashes[maybe], numbers[document], maybe - starts[document]
    hits = hits[np.argsort(hits["hash"], kind="stable")]  # within a hash still by document and position
    fresh = np.ones(len(hits), bool)
    fresh[1:] = (hits["hash"][1:] != hits["hash"][:-1]) | (hits["document"][1:] != hits["document"][:-1])
    return hits[fresh]


def resolve(hits: Runs, evaluation: Runs, n_documents: int) -> np.ndarray:
    """Where each training document first repeats the evaluation text: (n_documents,) int64 position in its words,
    −1 where it does not. `hits`: the candidates."""
    never = np.iinfo(np.int64).max
    first = np.full(n_documents, never)
    step = Runs.bins
    while step > 1 and max(hits.bytes, evaluation.bytes) * step // Runs.bins > _RANGE:
        step //= 2
    for low in range(0, Runs.bins, step):
        rows = hits.read(low, low + step)
        known, of, count = np.unique(rows["hash"], return_inverse=True, return_counts=True)
        if not len(known):
            continue
        repeated = np.isin(known, evaluation.read(low, low + step)["hash"]) & (count <= COMMON)
        rows = rows[repeated[of]]
        np.minimum.at(first, rows["document"], rows["at"].astype(np.int64))
    return np.where(first == never, -1, first)


def _chunks(path: Path) -> Iterator[np.ndarray]:
    with open(path, "rb") as file:
        while len(chunk := np.fromfile(file, np.uint64, _CHUNK)):
            yield chunk
