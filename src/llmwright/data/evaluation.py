"""Rows for measuring: every target of a split, or a fixed part of them, scored exactly once.

The part is chosen by a rule that knows neither the model nor its context, so that figures compare: the documents are
cut into blocks of 1,024 tokens, evenly spaced blocks are taken, and the last is cut short. Scoring is by pieces of
one context without overlap, or strided: each row repeats the end of the one before as context and only its last
`stride` targets count (Baevski & Auli 2019, section 5.4: "sliding window").
"""

from collections.abc import Iterator

import numpy as np

from ..errors import RequestError
from .batch import Batch, assemble
from .order import key
from .packing import Spans, cut, documents, join, pack
from .shards import Split

BLOCK = 1024
EVALUATION = 0xE7A1  # begins the draws of `evaluation_rows`, whatever a training's seed


def evaluation_batches(split: Split, context: int, batch: int, max_tokens: int | None = None,
                       stride: int | None = None) -> Iterator[Batch]:
    """Batches of at most `batch` rows that score each target once: all of the split, or `max_tokens` of it.

    Short pieces share rows (see `segments`); rows come in the order of their first token. With `stride` < `context`
    every target but a document's first ones has at least `context - stride` tokens before it.
    """
    stride = context if stride is None else stride
    if not 1 <= stride <= context:
        raise RequestError(f"stride {stride} is not allowed: 1 to the context, {context}")
    rows = pack(_windows(_chosen(split, max_tokens)[0], context, stride), context)
    skip = np.where(rows.pieces.fresh, 0, context - stride)
    for row in range(0, len(rows), batch):
        last = min(row + batch, len(rows))
        at = slice(rows.first[row], rows.first[last])
        yield assemble(split, split.eot_id, context, np.diff(rows.first[row : last + 1]), rows.pieces.start[at],
                       rows.pieces.length[at], skip[at])


def evaluation_rows(split: Split, context: int, batch: int, collate, max_tokens: int | None = None) -> Iterator[Batch]:
    """The same text in batches that `collate` makes (see `rows.RowLoader`), with the same draws each time."""
    rows = pack(cut(_chosen(split, max_tokens)[0], collate.row_tokens(context)), collate.row_tokens(context))
    for row in range(0, len(rows), batch):
        last = min(row + batch, len(rows))
        at = slice(rows.first[row], rows.first[last])
        n_pieces = np.diff(rows.first[row : last + 1])
        yield collate(split, context, n_pieces, rows.pieces.start[at], rows.pieces.length[at], key(EVALUATION, row))


def evaluation_bytes(split: Split, max_tokens: int | None = None) -> float:
    """UTF-8 bytes of the text that `evaluation_batches` scores: what bits per byte divide by. Exact for the whole
    split; a part of a document counts by its share of the document's tokens. The ends of text have no bytes."""
    return _chosen(split, max_tokens)[1]


def _chosen(split: Split, max_tokens: int | None) -> tuple[Spans, float]:
    columns = zip(*(source.spans() for source in split.sources.values()))
    start, length, size = (np.concatenate(column) for column in columns)
    whole = documents(start, length)
    if max_tokens is None or max_tokens >= split.n_tokens:
        return whole, float(split.n_bytes)
    blocks = cut(whole, BLOCK)
    n, total = len(blocks), 0
    k = max(1, int(max_tokens * n / split.n_tokens))
    while True:
        picked = np.arange(k) * n // k
        total = int(blocks.length[picked].sum())
        if total >= max_tokens:
            break
        k = min(n, k + max(1, (max_tokens - total) // BLOCK))
    blocks = blocks[picked]
    kept = np.clip(max_tokens - (np.cumsum(blocks.length) - blocks.length), 0, blocks.length)
    blocks = Spans(blocks.start[kept > 0], kept[kept > 0], blocks.fresh[kept > 0])
    owner = np.searchsorted(start, blocks.start, "right") - 1
    scored = join(blocks)
    return Spans(scored.start, scored.length, np.ones(len(scored), bool)), float(
        (size[owner] * (blocks.length / length[owner])).sum()
    )


def _windows(spans: Spans, context: int, stride: int) -> Spans:
    """Pieces of at most `context` tokens that start every `stride` tokens until the span's end is reached. A piece
    that is not `fresh` has its first `context - stride` targets in the piece before."""
    count = 1 + np.maximum(0, -(-(spans.length - context) // stride))
    owner = np.repeat(np.arange(len(spans)), count)
    k = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    offset = k * stride
    return Spans(spans.start[owner] + offset, np.minimum(context, spans.length[owner] - offset), k == 0)
