"""The words of a text as hashes, for comparing texts: lower-cased, punctuation and spaces aside.

A word is a run of letters, digits and underscores; whatever is beyond ASCII counts as a letter, and a Chinese,
Japanese or Korean character is a word of its own. All on bytes, so that a megabyte takes milliseconds.
"""

import numpy as np

from .rolling import span_hashes

_PIECE = 1 << 18  # bytes at a time: the temporaries are eight times as large

_LETTER = np.array([c >= 0x80 or chr(c).isalnum() or c == ord("_") for c in range(256)])
_CJK = np.array([0xE3 <= c <= 0xED or c >= 0xF0 for c in range(256)])  # first bytes of such characters in UTF-8
_LOWER = np.array([c + 32 if ord("A") <= c <= ord("Z") else c for c in range(256)], np.uint8)


def word_hashes(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """uint64 hash of each word of UTF-8 texts, text after text, and how many words each text has."""
    # one run over all texts: short ones would cost a dozen vector operations each
    data = b"\n".join(texts)
    hashes, starts = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for at, piece in _pieces(data):
        first, last = _spans(piece)
        hashes.append(span_hashes(_LOWER[piece], first, last))
        starts.append(first + at)
    ends = np.cumsum([len(text) + 1 for text in texts], dtype=np.int64)
    return np.concatenate(hashes), np.diff(np.searchsorted(np.concatenate(starts), ends), prepend=0)


def word_spans(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Where each word of a text begins and ends, in bytes."""
    spans = [np.stack(_spans(piece)) + at for at, piece in _pieces(text)]
    starts, ends = np.concatenate([np.empty((2, 0), np.int64), *spans], axis=1)
    return starts, ends


def _pieces(data: bytes):
    """(begin, bytes) of pieces that cut no word, unless one is longer than a piece."""
    buffer, at = np.frombuffer(data, np.uint8), 0
    while at < len(buffer):
        end = min(at + _PIECE, len(buffer))
        if end < len(buffer):
            end = max(data.rfind(b" ", at, end), data.rfind(b"\n", at, end)) + 1 or end
        yield at, buffer[at:end]
        at = end


def _spans(piece: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    letter = np.zeros(len(piece) + 2, bool)
    letter[1:-1] = _LETTER[piece]
    fresh = np.zeros(len(piece) + 1, bool)  # a character that is a word of its own begins here
    fresh[:-1] = _CJK[piece]
    before, here = letter[:-1], letter[1:]
    return np.flatnonzero(here & (~before | fresh)), np.flatnonzero(before & (~here | fresh))
