"""The second pass: tokenize the clean text in parallel, take overlap with the evaluation text out, write shards.

With an overlap to look for, validation and test text go first; the training tokens wait on disk until it is known
which documents repeat them. Otherwise everything goes to its shards at once.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .. import recipe
from ..errors import RequestError
from ..progress import Progress
from .corpus import Corpus, Spooled
from .overlap import HASH, HIT, Runs, build_filter, resolve
from .shard_writer import ShardWriter, token_dtype
from .split import PARTS
from .words import word_spans
from .work import Tokenized, TokenizeTask
from .workers import Workers


@dataclass
class Encoded:
    """Shards by part, and the training documents left out for their overlap with the evaluation text."""

    shards: dict[str, list[dict]] = field(default_factory=lambda: {part: [] for part in PARTS})
    overlap: dict = field(default_factory=lambda: {"documents": 0, "bytes": 0, "tokens": 0})
    dropped: list[dict] = field(default_factory=list)  # the first of them: name, source, what it shares


class Encoder:
    """Everything of this pass. `parts`: (N,) int8, the part of each document (see `TokenizeTask`)."""

    examples = 20  # documents with overlap that are named in the summary

    def __init__(self, data: recipe.Data, corpus: Corpus, parts: np.ndarray, tokenizer, out: Path, spool: Path):
        self.data, self.corpus, self.parts = data, corpus, parts
        self.tokenizer, self.out, self.spool = tokenizer, out, spool
        self.dtype = token_dtype(tokenizer.vocab_size)
        self.overlap = data.overlap_tokens if (parts == 0).any() and ((parts == 1) | (parts == 2)).any() else 0
        self.result = Encoded()
        self._writers: dict[tuple[str, str], ShardWriter] = {}

    def run(self, workers: Workers, progress: Progress) -> Encoded:
        total = int(self.corpus.sizes[self.parts >= 0].sum())
        with progress.task("tokenizing", total, "B") as task:
            if not self.overlap:
                for batch, out in self._map(workers, self.parts, None, task):
                    self._write(batch.source, out, (0, 1, 2))
            else:
                evaluation, hits = Runs(self.spool / "evaluation", HASH), Runs(self.spool / "hits", HIT)
                for batch, out in self._map(workers, np.where(self.parts == 0, -1, self.parts), None, task):
                    self._write(batch.source, out, (1, 2))
                    evaluation.add(out.hashes)
                evaluation.close()
                build_filter(evaluation, self.spool / "filter")
                kept_for_later = []
                training = np.where(self.parts == 0, 0, -1)
                for batch, out in self._map(workers, training, self.spool / "filter", task):
                    kept_for_later.append((batch, *self._set_aside(batch, out)))
                    hits.add(out.hits)
                hits.close()
        if self.overlap:
            with progress.task("overlap with the evaluation text", int(self.corpus.sizes[self.parts == 0].sum()),
                               "B") as task:
                first = resolve(hits, evaluation, len(self.corpus.sizes))
                for batch, lengths, numbers in kept_for_later:
                    self._write_without_overlap(batch, lengths, numbers, first)
                    task.advance(int(self.corpus.sizes[numbers].sum()), dropped=self.result.overlap["documents"])
        for (part, _), writer in self._writers.items():
            self.result.shards[part] += writer.close()
        return self.result

    def _map(self, workers: Workers, parts: np.ndarray, table: Path | None, task):
        """(batch, its tokens) of every batch with a document in one of `parts`."""
        batches = {b.path: b for b in self.corpus.spooled if (parts[b.first : b.first + b.n] >= 0).any()}
        jobs = (
            TokenizeTask(b.path, self.corpus.sizes[b.first : b.first + b.n], parts[b.first : b.first + b.n],
                         self.data.fractions, self.out / "tokenizer", self.tokenizer.vocab_size,
                         begin_id(self.tokenizer), end_id(self.tokenizer), self.overlap, table, b.first)
            for b in batches.values()
        )
        for job, out in workers.map("llmwright.data.work:tokenize_batch", jobs):
            task.advance(int(job.sizes[job.parts >= 0].sum()))
            yield batches[job.spool], out

    def _writer(self, part: str, source: str) -> ShardWriter:
        key = part, source
        if key not in self._writers:
            self._writers[key] = ShardWriter(self.out / part, source, self.tokenizer.vocab_size, self.data.shard_tokens)
        return self._writers[key]

    def _write(self, source: str, out: Tokenized, parts: tuple[int, ...]) -> None:
        for part in parts:
            if len(out.lengths[part]):
                self._writer(PARTS[part], source).add_many(out.tokens[part], out.lengths[part], out.n_bytes[part])

    def _set_aside(self, batch: Spooled, out: Tokenized) -> tuple[np.ndarray, np.ndarray]:
        out.tokens[0].tofile(batch.path.with_suffix(".tokens"))
        return out.lengths[0].astype(np.int32), batch.first + out.places[0]

    def _write_without_overlap(self, batch: Spooled, lengths: np.ndarray, numbers: np.ndarray, first: np.ndarray):
        tokens = np.fromfile(batch.path.with_suffix(".tokens"), self.dtype)
        batch.path.with_suffix(".tokens").unlink()  # the disk never holds all tokens twice
        lengths = lengths.astype(np.int64)
        clean = first[numbers] < 0
        self._count_overlap(batch, lengths, numbers, first)
        if clean.any():
            kept = tokens if clean.all() else tokens[np.repeat(clean, lengths)]
            self._writer("train", batch.source).add_many(kept, lengths[clean], self.corpus.sizes[numbers[clean]])

    def _count_overlap(self, batch: Spooled, lengths, numbers, first) -> None:
        bad = np.flatnonzero(first[numbers] >= 0)
        self.result.overlap["documents"] += len(bad)
        self.result.overlap["bytes"] += int(self.corpus.sizes[numbers[bad]].sum())
        self.result.overlap["tokens"] += int(lengths[bad].sum())
        for number in numbers[bad[: self.examples - len(self.result.dropped)]].tolist():
            starts, ends = word_spans(text := self.corpus.text(batch, number))
            at = first[number]
            shared = text[starts[at] : ends[at + self.overlap - 1]].decode("utf-8", "replace")
            name = self.corpus.names(batch)[number - batch.first]
            self.result.dropped.append({"name": name, "source": batch.source, "shares": shared})


def begin_id(tokenizer) -> int:
    """The id that stands before every document."""
    for i in (tokenizer.bos_id, tokenizer.eos_id):
        if i is not None:
            return i
    raise RequestError("tokenizer.path: this tokenizer has no token that begins or ends a text, so documents cannot be "
                       "told apart; give one with a bos_token or an eos_token in tokenizer_config.json")


def end_id(tokenizer) -> int | None:
    """The id that stands behind every document, where it is not the one before it: BERT's [SEP], Llama's </s>. A model
    that never saw it would not know how to end a text."""
    return tokenizer.eos_id if tokenizer.eos_id != begin_id(tokenizer) else None
