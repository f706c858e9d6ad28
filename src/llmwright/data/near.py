"""Near duplicates by MinHash (Broder 1997) and locality-sensitive hashing (Indyk & Motwani 1998).

A document is the set of its shingles: every 5 words in a row. Its signature is 128 minima, so the share of equal
places estimates the Jaccard similarity of two sets with a standard error of at most 0.045. Signatures are
cut into bands; documents that agree on a whole band are candidates, and a candidate is dropped when its signature
agrees with an earlier document's to the threshold.
"""

import functools
from pathlib import Path

import numpy as np

from .rolling import mix, window_hashes
from .words import word_hashes

PERMUTATIONS = 128
SHINGLE = 5  # words
SEED = 0x5EED
_PAD = np.uint64(0x70AD)


@functools.cache
def bands(threshold: float) -> tuple[int, int]:
    """(bands, rows): the most rows a band with which a pair at the threshold is found with probability ≥ 0.98."""
    for rows in range(PERMUTATIONS, 1, -1):
        n = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** n >= 0.98:
            return n, rows
    return PERMUTATIONS, 1


def signatures(texts: list[bytes]) -> np.ndarray:
    """MinHash signatures of UTF-8 texts: (len(texts), 128) uint16 (the low bits of each minimum: Li & König 2010).

    The last word is followed by padding, so that a text of fewer than five words has shingles too. A text without a
    word has the signature zero throughout.
    """
    from rensa import RMinHash

    words, lengths = word_hashes(texts)
    ends = np.cumsum(lengths + SHINGLE - 1)
    padding = np.zeros(int(ends[-1]) if texts else 0, bool)
    for k in range(1, SHINGLE):
        padding[ends - k] = True
    padded = np.full(len(padding) + SHINGLE - 1, _PAD)
    padded[: len(padding)][~padding] = words
    shingles = window_hashes(padded, SHINGLE)[~padding]  # a window that begins in the padding belongs to no text
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, PERMUTATIONS, SEED)
    out = np.array(matrix.to_rows(), np.uint32).astype(np.uint16).reshape(len(texts), PERMUTATIONS)
    out[lengths == 0] = 0
    return out


def band_keys(signature: np.ndarray, threshold: float) -> np.ndarray:
    """(bands, documents) uint64: equal keys in a band make two documents candidates. 0: never a candidate."""
    n, rows = bands(threshold)
    keys = np.empty((n, len(signature)), np.uint64)
    for band in range(n):
        key = np.zeros(len(signature), np.uint64)
        for column in range(band * rows, (band + 1) * rows):
            key = mix(key * np.uint64(31) + signature[:, column] + np.uint64(1))
        keys[band] = key
    keys[:, ~signature.any(axis=1)] = 0
    return keys


class NearDuplicates:
    """Signatures and band keys in files, appended as documents come; decided at the end, one band at a time, so the
    memory is some 30 bytes a document."""

    def __init__(self, directory: Path, threshold: float):
        self.threshold = threshold
        self._paths = [directory / f"band-{i}" for i in range(bands(threshold)[0])]
        self._signatures = directory / "signatures"
        self._files = [open(path, "wb") for path in [*self._paths, self._signatures]]

    def add(self, signature: np.ndarray) -> None:
        for file, key in zip(self._files, band_keys(signature, self.threshold)):
            file.write(key.tobytes())
        self._files[-1].write(signature.tobytes())

    def close(self) -> None:
        for file in self._files:
            file.close()

    def drop(self, alive: np.ndarray) -> np.ndarray:
        """Which documents are near duplicates of an earlier one: (N,) bool. Those not `alive` are left out, and so is
        one found to be a duplicate from then on: it makes no others duplicates."""
        self.close()
        dropped = np.zeros(len(alive), bool)
        if not len(alive):
            return dropped
        signature = np.memmap(self._signatures, np.uint16, "r", shape=(len(alive), PERMUTATIONS))
        for path in self._paths:
            keys = np.fromfile(path, np.uint64)
            documents = np.flatnonzero(alive & ~dropped & (keys != 0))
            self._drop_in_band(documents, keys[documents], signature, dropped)
        return dropped

    def _drop_in_band(self, documents, keys, signature, dropped) -> None:
        # in each group of equal keys compare all with the first; those unlike it form the next round's group
        for _ in range(32):
            order = np.argsort(keys, kind="stable")
            documents, keys = documents[order], keys[order]
            first = np.ones(len(keys), bool)
            first[1:] = keys[1:] != keys[:-1]
            leader = documents[np.maximum.accumulate(np.where(first, np.arange(len(keys)), 0))]
            documents, keys, leader = documents[~first], keys[~first], leader[~first]
            if not len(documents):
                return
            same = np.empty(len(documents), bool)
            for at in range(0, len(documents), 4096):
                part = slice(at, at + 4096)
                agreement = (signature[leader[part]] == signature[documents[part]]).mean(axis=1)
                same[part] = agreement >= self.threshold
            dropped[documents[same]] = True
            documents, keys = documents[~same], keys[~same]
