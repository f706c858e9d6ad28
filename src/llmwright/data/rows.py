"""From shards to training batches, for ever, in a seeded order that resumes exactly."""

import numpy as np

from ..errors import RequestError
from .batch import Batch, NextTokens
from .evaluation import evaluation_batches, evaluation_bytes
from .mixture import Mixture
from .order import key
from .shards import Split
from .streams import PackedStream, WindowStream

__all__ = ["Batch", "RowLoader", "evaluation_batches", "evaluation_bytes"]


class RowLoader:
    """Endless training batches of `batch` rows of `context` tokens from a split.

    `rows`: "packed" (documents without loss, see packing.py) or "window" (one text cut every `stride` tokens,
    default the context). `mixture`: shares of the tokens by source, default by size; `curriculum`: stages with
    `.start` (fraction of the training) and `.mixture`. Ranks of a data-parallel group build the same loader and take
    disjoint rows of it: row i of the plan goes to rank i mod world_size. `collate` makes batches of the rows' pieces
    (`batch.NextTokens` says how it is called); what it draws at random it draws from a number that it is given.

    Raises RequestError for an unknown source and for a split that is smaller than one row.
    """

    def __init__(self, split: Split, context: int, batch: int, seed: int, rows: str = "packed",
                 stride: int | None = None, mixture: dict[str, float] | None = None, curriculum=(),
                 eot_id: int | None = None, rank: int = 0, world_size: int = 1, collate=None):
        if rows not in ("packed", "window"):
            raise RequestError(f"train.rows: {rows} is not allowed; packed or window is")
        self.split, self.context, self.batch, self.rows, self.stride = split, context, batch, rows, stride
        self.collate = collate or NextTokens(split.eot_id if eot_id is None else eot_id)
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self.emitted = 0  # tokens of text, of all ranks
        self._check(context)
        self.mixture = Mixture({name: s.n_tokens for name, s in split.sources.items()}, mixture or {}, curriculum)
        tokens = self.collate.row_tokens(context)
        used = {name for shares in self.mixture.shares for name, share in shares.items() if share > 0}
        if rows == "packed":
            self.streams = {name: PackedStream(split.sources[name], tokens, seed) for name in used}
        else:
            self.streams = {name: WindowStream(split.sources[name], tokens, stride, seed) for name in used}
        self._passes = {name: 0 for name in used}

    def next_batch(self, progress: float = 0.0) -> Batch:
        """The next batch of this rank. `progress`, 0..1, chooses the curriculum's stage."""
        self.mixture.move_to(progress)
        draw, pieces = key(self.seed, self.emitted, self.rank), []
        for i in range(self.batch * self.world_size):
            name = self.mixture.choose(self._passes)
            stream = self.streams[name]
            start, length, size = stream.take()
            self._passes[name] = stream.epoch
            self.mixture.count(name, size)
            self.emitted += size
            if i % self.world_size == self.rank:
                pieces.append((start, length))
        start, length = (np.concatenate(column) for column in zip(*pieces))
        n_pieces = np.array([len(lengths) for _, lengths in pieces])
        return self.collate(self.split, self.context, n_pieces, start, length, draw)

    @property
    def epoch(self) -> float:
        """Tokens given so far, by the size of the split."""
        return self.emitted / self.split.n_tokens

    def resize(self, context: int, batch: int) -> None:
        """Longer rows or larger batches from here on. Packed: no token of the epoch is lost or comes twice. Window:
        the pass goes on at the same fraction of the new rows."""
        self._check(context)
        self.batch = batch
        if context != self.context:
            for stream in self.streams.values():
                stream.resize(self.collate.row_tokens(context))
            self.context = context

    def state(self) -> dict:
        """All that is needed to go on exactly here, for JSON. It is the same on every rank, and holds for another
        number of ranks as well."""
        return {
            "identity": self._identity(), "context": self.context, "batch": self.batch, "emitted": self.emitted,
            "stage": self.mixture.stage, "given": dict(self.mixture.given),
            "streams": {name: stream.state() for name, stream in sorted(self.streams.items())},
        }

    def load_state(self, state: dict) -> None:
        """Go on where `state` was taken; context and batch are the state's. Raises RequestError when this loader
        reads other data or in another way."""
        mine = self._identity()
        for name, value in state["identity"].items():
            if mine.get(name) != value:
                raise RequestError(f"cannot resume: {name} was {value} when this state was saved and is {mine[name]}")
        if unknown := [name for name in self.streams if name not in state["streams"]]:
            raise RequestError(f"cannot resume: the mixture now takes {', '.join(unknown)}, which it did not before")
        self.context, self.batch, self.emitted = state["context"], state["batch"], state["emitted"]
        self.mixture.stage, self.mixture.given = state["stage"], dict(state["given"])
        self.mixture.total = sum(self.mixture.given.values())
        for name, stream in self.streams.items():
            stream.context = self.collate.row_tokens(self.context)
            stream.load_state(state["streams"][name])
            self._passes[name] = stream.epoch

    def _identity(self) -> dict:
        sources = {name: [s.n_documents, s.n_tokens] for name, s in self.split.sources.items()}
        return {"seed": self.seed, "rows": self.rows, "stride": self.stride, "sources": sources}

    def _check(self, context: int) -> None:
        n, tokens = self.split.n_tokens, self.collate.row_tokens(context)
        if n < tokens:
            raise RequestError(
                f"{self.split.directory}: {n:,} training tokens, fewer than one row of {tokens:,}: use more text or "
                f"train.context={n * context // tokens} or less"
            )
