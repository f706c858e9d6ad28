"""The endless stream of rows of one source, and a cursor into it of a few integers.

Every plan is a pure function of small integers (seed, epoch, first document of the window, context), so a stream
resumes exactly from its state, and nothing about a row is kept in memory but its window's table of pieces.
"""

import numpy as np

from ..errors import RequestError
from .order import key, mix, permuted
from .packing import Rows, after, cut, documents, pack, shuffled
from .shards import SourceView

WINDOW_DOCUMENTS = 1 << 17  # a plan covers at most so many documents
WINDOW_TOKENS = 1 << 26  # and so many tokens, but at least one document


class PackedStream:
    """Documents in a seeded random order, planned window by window; the rows of a window come in random order.

    In the first epoch cuts are at multiples of the context. Later each document longer than the context has a first
    piece of random length, so the rows' borders move. After `resize` the tokens of the window that were not given yet
    are joined where they follow each other, and cut and packed again: none is lost and none comes twice.
    """

    def __init__(self, source: SourceView, context: int, seed: int):
        self.source, self.context = source, context
        self.seed = key(seed, *source.name.encode())  # sources of one size must not be read in one order
        self.epoch = self.window = self.row = 0  # window: its first document in the epoch's order
        self.given: list[list[int]] = []  # [context, rows given] before each resize within this window
        self._plan: Rows | None = None

    def take(self) -> tuple[np.ndarray, np.ndarray, int]:
        """The next row: first address and length of each piece, and its number of tokens."""
        if self._plan is None:
            self._make_plan()
        rows, at = self._plan, slice(self._plan.first[self.row], self._plan.first[self.row + 1])
        piece = rows.pieces.start[at], rows.pieces.length[at], int(rows.size[self.row])
        self.row += 1
        if self.row == len(rows):
            self.row, self.given, self._plan = 0, [], None
            self.window += self._n_documents
            if self.window == self.source.n_documents:
                self.epoch, self.window = self.epoch + 1, 0
        return piece

    def resize(self, context: int) -> None:
        if self.row:
            self.given.append([self.context, self.row])
        self.context, self.row, self._plan = context, 0, None

    def state(self) -> dict:
        return {"epoch": self.epoch, "window": self.window, "row": self.row, "given": [list(g) for g in self.given]}

    def load_state(self, state: dict) -> None:
        self.epoch, self.window, self.row = state["epoch"], state["window"], state["row"]
        self.given, self._plan = [list(g) for g in state["given"]], None

    def _make_plan(self) -> None:
        n = self.source.n_documents
        order = np.arange(self.window, min(n, self.window + WINDOW_DOCUMENTS))
        chosen = permuted(order, n, key(self.seed, self.epoch))
        start, length, _ = self.source.spans(chosen)
        self._n_documents = max(1, int(np.searchsorted(np.cumsum(length), WINDOW_TOKENS, "right")))
        chosen = chosen[: self._n_documents]
        spans = documents(start[: self._n_documents], length[: self._n_documents])
        first_context = self.given[0][0] if self.given else self.context
        first = None
        if self.epoch:
            draw = mix(chosen.astype(np.uint64), key(self.seed, self.epoch, 1))
            first = 1 + (draw % np.uint64(first_context)).astype(np.int64)
        for step, (context, n_given) in enumerate([*self.given, [self.context, None]]):
            rows = shuffled(pack(cut(spans, context, first), context), key(self.seed, self.epoch, self.window, 2, step))
            if n_given is not None:
                spans, first = after(rows, n_given), None
        self._plan = rows


class WindowStream:
    """The classic: the documents one after another as one text, and rows of `context` tokens that start at 0, stride,
    2·stride, …, in random order, across documents' borders. From the second epoch on all starts move by one random
    number below the stride. Less than a row is left out at the end.

    After `resize` a pass goes on at the same fraction of the new rows, in a new order: here a pass is a sample, not
    an account of every token.
    """

    def __init__(self, source: SourceView, context: int, stride: int | None, seed: int):
        self.source, self.context, self.given_stride = source, context, stride
        self.seed = key(seed, *source.name.encode())
        self.epoch = self.row = 0
        self._check(context)
        self._block = (-1, None)

    def take(self) -> tuple[np.ndarray, np.ndarray, int]:
        shift, n = self._grid()
        number, within = divmod(self.row, 4096)
        if self._block[0] != number:  # the order is computed a block at a time: a call costs more than a row
            rows = np.arange(number * 4096, min(n, number * 4096 + 4096))
            order = permuted(rows, n, key(self.seed, self.epoch, self.context))
            self._block = number, self.source.begin + shift + order * self.stride
        start = self._block[1][within : within + 1]
        self.row += 1
        if self.row == n:
            self.epoch, self.row, self._block = self.epoch + 1, 0, (-1, None)
        return start, np.array([self.context]), self.context

    @property
    def stride(self) -> int:
        return self.given_stride or self.context

    def resize(self, context: int) -> None:
        self._check(context)
        before = self._grid()[1]
        self.context, self._block = context, (-1, None)
        self.row = min(self.row * self._grid()[1] // before, self._grid()[1] - 1)

    def state(self) -> dict:
        return {"epoch": self.epoch, "row": self.row}

    def load_state(self, state: dict) -> None:
        self.epoch, self.row, self._block = state["epoch"], state["row"], (-1, None)

    def _grid(self) -> tuple[int, int]:
        """Where the first row starts in this epoch, and how many rows there are."""
        room = self.source.n_tokens - self.context
        shift = key(self.seed, self.epoch, 1) % min(self.stride, room + 1) if self.epoch else 0
        return shift, (room - shift) // self.stride + 1

    def _check(self, context: int) -> None:
        if self.source.n_tokens < context:
            raise RequestError(
                f"{self.source.name}: {self.source.n_tokens:,} training tokens, fewer than one row of {context:,}: "
                f"use more text or train.context={self.source.n_tokens} or less"
            )
