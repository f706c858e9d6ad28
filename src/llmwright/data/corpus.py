"""The first pass: read, clean and deduplicate everything once, and spool the clean text to disk.

What stays in memory is 25 bytes a document (hash, size, part); text passes through in batches. The order of documents
is the order of the sources and their files, whatever the number of workers.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .. import recipe
from ..errors import RequestError
from ..progress import Progress
from .dedup import repeated
from .near import NearDuplicates
from .read import batches
from .sources import Listing, counted
from .work import CleanTask
from .workers import Workers

FILTERS = ("min_chars", "max_line_chars", "min_letter_share", "max_repeated_line_share")


@dataclass
class Spooled:
    """The clean documents of one batch on disk: documents `first` to `first + n` of the corpus."""

    path: Path
    source: str
    first: int
    n: int


@dataclass
class Corpus:
    """All clean documents, duplicates marked. `counts`: repairs, drops and the like by name."""

    spooled: list[Spooled] = field(default_factory=list)
    digests: np.ndarray | None = None  # (N, 2) uint64
    sizes: np.ndarray | None = None  # (N,) int64, UTF-8 bytes
    kept: np.ndarray | None = None  # (N,) bool
    counts: Counter = field(default_factory=Counter)
    raw_bytes: dict[str, int] = field(default_factory=dict)  # by source, decompressed
    exact: dict[str, int] = field(default_factory=dict)
    near: dict[str, int] = field(default_factory=dict)

    def names(self, batch: Spooled) -> list[str]:
        return json.loads(batch.path.with_suffix(".names").read_text())

    def text(self, batch: Spooled, number: int) -> bytes:
        """One document."""
        with open(batch.path, "rb") as file:
            file.seek(int(self.sizes[batch.first : number].sum()))
            return file.read(int(self.sizes[number]))

    def texts(self, wanted: np.ndarray) -> Iterator[tuple[int, bytes]]:
        """(number, UTF-8 text) of the documents with `wanted`, (N,) bool, in order."""
        for batch in self.spooled:
            numbers = np.flatnonzero(wanted[batch.first : batch.first + batch.n]) + batch.first
            if not len(numbers):
                continue
            data = batch.path.read_bytes()
            ends = np.cumsum(self.sizes[batch.first : batch.first + batch.n])
            for number in numbers.tolist():
                end = ends[number - batch.first]
                yield number, data[end - self.sizes[number] : end]


def collect(data: recipe.Data, listings: list[Listing], spool: Path, workers: Workers, progress: Progress) -> Corpus:
    """Read and clean what the listings name into the folder `spool`, and mark the duplicates.

    Raises RequestError when a source cannot be read, or nothing is left after cleaning.
    """
    corpus = Corpus()
    near = NearDuplicates(spool, data.near_duplicates) if data.near_duplicates else None
    digests, sizes, first = [], [], 0
    known = [listing.bytes for listing in listings]
    total = None if None in known else sum(known)
    with progress.task("reading and cleaning", total, "B") as task:
        for job, out in workers.map("llmwright.data.work:clean_batch", _tasks(data, listings, spool, corpus)):
            n, batch = len(out.sizes), job.batch
            corpus.raw_bytes[batch.source] = corpus.raw_bytes.get(batch.source, 0) + batch.size
            corpus.spooled.append(Spooled(job.spool, batch.source, first, n))
            corpus.counts += out.counts
            digests.append(out.digests)
            sizes.append(out.sizes)
            if near:
                near.add(out.signatures)
            first += n
            task.advance(batch.size, documents=f"{first:,}")
    corpus.digests = np.concatenate([np.empty((0, 2), np.uint64), *digests])
    corpus.sizes = np.concatenate([np.empty(0, np.int64), *sizes])
    _mark_duplicates(corpus, data, near, progress)
    if not corpus.kept.any():
        raise RequestError(_nothing_left(corpus, listings))
    return corpus


def _tasks(data: recipe.Data, listings: list[Listing], spool: Path, corpus: Corpus) -> Iterator[CleanTask]:
    number = 0
    for listing in listings:
        corpus.raw_bytes[listing.name] = 0
        for batch in batches(listing, corpus.counts):
            yield CleanTask(batch, data.clean, bool(data.near_duplicates), spool / f"{number:06d}.text")
            number += 1


def _mark_duplicates(corpus: Corpus, data: recipe.Data, near: NearDuplicates | None, progress: Progress) -> None:
    corpus.kept = np.ones(len(corpus.sizes), bool)
    steps = [("exact", data.exact_duplicates, lambda: repeated(corpus.digests)),
             ("near", near, lambda: near.drop(corpus.kept))]
    with progress.task("duplicates", len(corpus.sizes), "documents") as task:
        for name, wanted, find in steps:
            duplicates = find() & corpus.kept if wanted else np.zeros(len(corpus.sizes), bool)
            setattr(corpus, name, {"documents": int(duplicates.sum()), "bytes": int(corpus.sizes[duplicates].sum())})
            corpus.kept &= ~duplicates
            if wanted:
                task.advance(0, **{name: f"{int(duplicates.sum()):,}"})
        task.advance(len(corpus.sizes))


def _nothing_left(corpus: Corpus, listings: list[Listing]) -> str:
    where = ", ".join(listing.path for listing in listings)
    counts = corpus.counts
    lost = [f"{name} {counted(counts[name], 'document')} ({counted(counts[f'{name} bytes'], 'byte')})"
            for name in FILTERS if counts[name]]
    lost += [f"{name}: {counts[name]}" for name in ("rows not JSON", "rows without text", "rows too long")
             if counts[name]]
    lost += [f"{why}: {counted(n, 'file')}" for listing in listings for why, n in listing.skipped.items()]
    return f"{where}: no document is left after cleaning; dropped by {'; '.join(lost) or 'nothing: there was no text'}"
