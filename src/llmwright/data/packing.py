"""Documents to rows of at most `context` tokens, and no token lost.

A document is cut into pieces of `context` inputs; a piece's last target is the next piece's first token, so every
token is an input once and a target once. Full pieces are rows. What remains of each document is packed whole,
best fit decreasing (Johnson 1973; for language models: Ding et al. 2024, "Fewer Truncations Improve Language
Modeling"), and only the space no piece fits is padding.

All pieces of equal length are placed in one vectorized step, and bins are kept in one bucket for each amount of free
space, so packing costs a few thousand numpy calls whatever the number of pieces.
"""

from dataclasses import dataclass

import numpy as np

from .order import permuted


@dataclass(frozen=True)
class Spans:
    """Runs of tokens that belong together, as parallel arrays: (N,) first address and length, and whether the span
    begins where nothing before it may be joined to it (a document's first piece)."""

    start: np.ndarray
    length: np.ndarray
    fresh: np.ndarray

    def __len__(self):
        return len(self.start)

    def __getitem__(self, which) -> "Spans":
        return Spans(self.start[which], self.length[which], self.fresh[which])


@dataclass(frozen=True)
class Rows:
    """Row r holds the pieces first[r] : first[r + 1]. `size` is the number of tokens (= targets) in each row."""

    pieces: Spans
    first: np.ndarray
    size: np.ndarray

    def __len__(self):
        return len(self.size)


def documents(start: np.ndarray, length: np.ndarray) -> Spans:
    """Whole documents as spans."""
    return Spans(start, length, np.ones(len(start), bool))


def cut(spans: Spans, context: int, first: np.ndarray | None = None) -> Spans:
    """Pieces of at most `context` tokens, in order. `first` (N,), values in 1..context, is the length of the first
    piece of each span longer than the context, which moves all the cuts after it; default: the context."""
    lead = np.full(len(spans), context) if first is None else first
    lead = np.minimum(np.where(spans.length > context, lead, context), spans.length)
    count = 1 + -(-(spans.length - lead) // context)
    owner = np.repeat(np.arange(len(spans)), count)
    k = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)  # piece k of its span
    offset = np.where(k == 0, 0, lead[owner] + (k - 1) * context)
    length = np.where(k == 0, lead[owner], np.minimum(context, spans.length[owner] - offset))
    return Spans(spans.start[owner] + offset, length, spans.fresh[owner] & (k == 0))


def join(pieces: Spans) -> Spans:
    """The opposite of `cut`: pieces of one document that follow each other become one span. Sorted by address."""
    pieces = pieces[np.argsort(pieces.start, kind="stable")]
    if len(pieces) == 0:
        return pieces
    follows = np.concatenate([[False], pieces.start[1:] == pieces.start[:-1] + pieces.length[:-1]])
    heads = np.flatnonzero(~follows | pieces.fresh)
    return Spans(pieces.start[heads], np.add.reduceat(pieces.length, heads), pieces.fresh[heads])


def best_fit(lengths: np.ndarray, context: int) -> np.ndarray:
    """The row of each piece (N,), best fit decreasing: the longest pieces first, each into the fullest row that still
    has room, or a new one. Lengths are 1..context. Rows are numbered 0, 1, … as they are opened."""
    row = np.empty(len(lengths), np.int64)
    order = np.argsort(-lengths, kind="stable")
    values, begins, counts = np.unique(-lengths[order], return_index=True, return_counts=True)
    buckets: list[list[np.ndarray]] = [[] for _ in range(context + 1)]  # rows by free space
    open_spaces = 0  # bit s is set when a row with s free tokens exists: finding the fullest that fits is one shift
    n_rows = 0
    for value, begin, count in zip((-values).tolist(), begins.tolist(), counts.tolist()):
        at, end = begin, begin + count
        while at < end:
            fitting = open_spaces >> value
            if fitting:
                space = value + (fitting & -fitting).bit_length() - 1
                rows = np.concatenate(buckets[space])
                each = space // value
                used = min(len(rows), -(-(end - at) // each))
                buckets[space] = [rows[used:]] if used < len(rows) else []
                rows = rows[:used]
                if not buckets[space]:
                    open_spaces ^= 1 << space
            else:
                space, each = context, context // value
                rows = np.arange(n_rows, n_rows + -(-(end - at) // each))
                n_rows += len(rows)
            # the next piece of this length goes into the row just used, as long as there is room: it is the fullest
            placed = np.repeat(rows, each)[: end - at]
            row[order[at : at + len(placed)]] = placed
            at += len(placed)
            in_last = len(placed) - (len(rows) - 1) * each
            for left, group in ((space - each * value, rows[:-1]), (space - in_last * value, rows[-1:])):
                if left and len(group):
                    buckets[left].append(group)
                    open_spaces |= 1 << left
    return row


def pack(pieces: Spans, context: int) -> Rows:
    """Rows in the order of their first piece."""
    row = np.empty(len(pieces), np.int64)
    full = pieces.length == context
    row[~full] = best_fit(pieces.length[~full], context)
    n_packed = int(row[~full].max()) + 1 if not full.all() else 0
    row[full] = n_packed + np.arange(full.sum())
    _, appears = np.unique(row, return_index=True)
    return _arrange(pieces, row, np.argsort(appears, kind="stable"))


def shuffled(rows: Rows, key: int) -> Rows:
    """The same rows in the key's order."""
    n = len(rows)
    row = np.repeat(np.arange(n), np.diff(rows.first))
    return _arrange(rows.pieces, row, permuted(np.arange(n), n, key))


def after(rows: Rows, n: int) -> Spans:
    """What the rows from row `n` on hold, as joined spans."""
    at = rows.first[n]
    return join(rows.pieces[at:])


def _arrange(pieces: Spans, row: np.ndarray, order: np.ndarray) -> Rows:
    """Rows with `order[i]` as row i, the pieces of each in their given order."""
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    by_row = np.argsort(place[row], kind="stable")
    pieces = pieces[by_row]
    first = np.concatenate([[0], np.cumsum(np.bincount(place[row], minlength=len(order)))])
    size = np.add.reduceat(pieces.length, first[:-1]) if len(order) else np.empty(0, np.int64)
    return Rows(pieces, first, size)
