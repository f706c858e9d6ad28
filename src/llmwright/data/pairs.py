"""Pairs of texts to training batches, for ever, in a seeded order that resumes exactly.

A data directory of pairs holds each one as two documents that follow each other: the source, then the target. Batches are
of like length, so that little is padded, and hold as many pairs as a budget of tokens allows (Vaswani et al. 2017, section
5.1: "approximately 25000 source tokens and 25000 target tokens").
"""

from collections.abc import Iterator

import numpy as np

from ..errors import RequestError
from .batch import PairBatch, pair_batch
from .order import key, permuted
from .shards import Split

WINDOW_PAIRS = 1 << 17  # a plan covers at most so many pairs


class Pairs:
    """The pairs of a split that fit `context` tokens a side, end tokens counted; `left_out` is the number of others.

    `start_id` begins what a decoder writes, `eos_id` ends every text, `pad_id` fills rows.
    """

    def __init__(self, split: Split, context: int, *, start_id: int, eos_id: int, pad_id: int):
        self.split, self.context = split, context
        self.start_id, self.eos_id, self.pad_id = start_id, eos_id, pad_id
        columns = [source.spans()[:2] for source in split.sources.values()]
        start, length = (np.concatenate(column) for column in zip(*columns))
        self.start = start.reshape(-1, 2)  # (N, 2) of source and target: a stored text is [eot] t1 … tn
        self.length = length.reshape(-1, 2)  # (N, 2) with an end token in place of that eot
        self.total = len(self.length)
        fits = (self.length <= context).all(1)
        self.start, self.length = self.start[fits], self.length[fits]
        self.left_out = self.total - len(self.length)
        if not len(self.length):
            raise RequestError(
                f"{split.directory}: none of its {self.total:,} pairs fits {context} tokens a side; the shortest takes "
                f"{int(length.reshape(-1, 2).max(1).min())}: raise train.context and model.context"
            )

    def __len__(self) -> int:
        return len(self.length)

    def batch(self, numbers: np.ndarray) -> PairBatch:
        """These pairs, in this order."""
        sides = []
        for side in (0, 1):
            start, length = self.start[numbers, side], self.length[numbers, side]
            before = np.cumsum(length) - length
            within = np.arange(int(length.sum())) - np.repeat(before, length)
            ids = self.split.take(np.repeat(start + 1, length) + within)
            ids[before + length - 1] = self.eos_id  # what follows a text in the shards begins another one
            sides.append(np.split(ids, before[1:]))
        return pair_batch(*sides, self.start_id, self.pad_id)

    def batches(self, order: np.ndarray, tokens: int) -> list[np.ndarray]:
        """The pairs of `order` in batches of like length: at most `tokens` a side, padding counted, and at least one
        pair. Pairs of one length keep the order they are given in."""
        lengths = self.length[order]
        order = order[np.lexsort((lengths[:, 0], lengths[:, 1]))]
        longest = self.length[order].max(1)
        out, at = [], 0
        while at < len(order):
            most = np.maximum.accumulate(longest[at : at + tokens])  # no batch holds more than `tokens` pairs
            fits = most * np.arange(1, len(most) + 1) <= tokens
            n = max(1, int(fits.argmin()) if not fits.all() else len(fits))
            out.append(order[at : at + n])
            at += n
        return out


class PairLoader:
    """Endless training batches of at most `tokens` a side, padding counted.

    An epoch gives each pair once. Pairs come in a seeded random order, a window of 131,072 of them is cut into batches of
    like length, and the batches come in random order: other neighbours in each epoch. Ranks of a data-parallel group
    build the same loader and take its batches in turn.
    """

    def __init__(self, pairs: Pairs, tokens: int, seed: int, rank: int = 0, world_size: int = 1):
        if tokens < pairs.context:
            raise RequestError(f"train.batch_tokens {tokens} has no room for one pair of {pairs.context} tokens a side")
        self.pairs, self.tokens, self.seed = pairs, tokens, seed
        self.rank, self.world_size = rank, world_size
        self.passes = self.window = self.at = 0  # at: batches given of this window
        self._plan: list[np.ndarray] | None = None

    def next_batch(self, progress: float = 0.0) -> PairBatch:
        """The next batch of this rank."""
        taken = [self._take() for _ in range(self.world_size)]
        return self.pairs.batch(taken[self.rank])

    def _take(self) -> np.ndarray:
        plan = self._batches()
        numbers = plan[self.at]
        self.at += 1
        if self.at == len(plan):
            self.at, self._plan, self.window = 0, None, self.window + WINDOW_PAIRS
            if self.window >= len(self.pairs):
                self.passes, self.window = self.passes + 1, 0
        return numbers

    def _batches(self) -> list[np.ndarray]:
        """The batches of this window, in the order in which they are given."""
        if self._plan is None:
            n = len(self.pairs)
            window = np.arange(self.window, min(n, self.window + WINDOW_PAIRS))
            batches = self.pairs.batches(permuted(window, n, key(self.seed, self.passes)), self.tokens)
            order = permuted(np.arange(len(batches)), len(batches), key(self.seed, self.passes, self.window, 1))
            self._plan = [batches[i] for i in order]
        return self._plan

    @property
    def epoch(self) -> float:
        """Passes over the pairs so far."""
        done = self.window
        if self.at:
            done += min(WINDOW_PAIRS, len(self.pairs) - self.window) * self.at / len(self._batches())
        return self.passes + done / len(self.pairs)

    def resize(self, context: int, batch: int) -> None:
        """Pairs are as long as they are: the loop's rows and their growth do not concern them."""

    def state(self) -> dict:
        """All that is needed to go on exactly here, for JSON; the same on every rank."""
        return {"identity": self._identity(), "passes": self.passes, "window": self.window, "at": self.at}

    def load_state(self, state: dict) -> None:
        """Go on where `state` was taken. Raises RequestError when this loader reads other data or in another way."""
        for name, value in self._identity().items():
            if state["identity"].get(name) != value:
                raise RequestError(
                    f"cannot resume: {name} was {state['identity'].get(name)} when this state was saved and is {value}"
                )
        self.passes, self.window, self.at, self._plan = state["passes"], state["window"], state["at"], None

    def _identity(self) -> dict:
        return {"seed": self.seed, "pairs": len(self.pairs), "context": self.pairs.context, "batch_tokens": self.tokens}


def evaluation_pairs(pairs: Pairs, tokens: int, max_tokens: int | None = None) -> Iterator[PairBatch]:
    """Every pair once, or an even choice of them with about `max_tokens` target tokens: always the same ones."""
    chosen = np.arange(len(pairs))
    total = int(pairs.length[:, 1].sum())
    if max_tokens is not None and max_tokens < total:
        n = max(1, len(pairs) * max_tokens // total)
        chosen = np.arange(n) * len(pairs) // n
    for numbers in pairs.batches(chosen, tokens):
        yield pairs.batch(numbers)
