"""Writing tokenized documents to shards as they come, so a corpus of any size takes no memory. `shards.py` says what
the two files of a shard hold."""

import os
import re
from pathlib import Path

import numpy as np
import xxhash

from ..errors import WorkError


def token_dtype(vocab_size: int) -> np.dtype:
    """How ids of this vocabulary are stored."""
    return np.dtype("<u2" if vocab_size <= 65_536 else "<u4")


class ShardWriter:
    """Writes the documents of one source into `directory`, a new shard every `shard_tokens` tokens.

    A document is never cut, so a shard may be shorter, or longer when one document is. Raises WorkError when the disk
    does not take it.
    """

    def __init__(self, directory: str | Path, source: str, vocab_size: int, shard_tokens: int):
        self.directory, self.source = Path(directory), source
        self.vocab_size, self.shard_tokens = vocab_size, shard_tokens
        self.dtype = token_dtype(vocab_size)
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", source)
        self.stem = safe if safe == source else f"{safe}-{xxhash.xxh32_hexdigest(source.encode())}"
        self.shards: list[dict] = []
        self._file = None

    def add(self, tokens: np.ndarray, n_bytes: int) -> None:
        """One document: `tokens` begin with the end-of-text id; `n_bytes` is the UTF-8 size of its text."""
        self.add_many(tokens, np.array([len(tokens)]), np.array([n_bytes]))

    def add_many(self, tokens: np.ndarray, lengths: np.ndarray, n_bytes: np.ndarray) -> None:
        """Documents one after another in `tokens`, with their lengths and text sizes: (D,) arrays."""
        tokens, lengths = np.asarray(tokens), np.asarray(lengths, np.int64)
        ends = np.cumsum(lengths)
        if len(lengths) == 0:
            return
        if lengths.min() < 1 or ends[-1] != len(tokens) or len(n_bytes) != len(lengths):
            raise ValueError(f"{len(tokens)} tokens do not split into documents of {lengths.tolist()[:5]}… tokens")
        if int(tokens.max()) >= self.vocab_size or int(tokens.min()) < 0:
            raise WorkError(
                f"{self.source}: a token id of {int(tokens.max())} is outside the vocabulary of {self.vocab_size}"
            )
        tokens = tokens.astype(self.dtype, copy=False)
        done = 0  # documents
        while done < len(lengths):
            if self._file is None:
                self._open()
            base = int(ends[done - 1]) if done else 0
            fits = int(np.searchsorted(ends, base + self.shard_tokens - self._tokens, "right"))
            if self._tokens == 0:
                fits = max(fits, done + 1)
            if fits <= done:
                self._finish()
                continue
            end = int(ends[fits - 1])
            starts = self._tokens + np.concatenate([[0], ends[done : fits - 1] - base])
            self._docs.append(np.stack([starts, np.asarray(n_bytes[done:fits])], 1).astype("<i8"))
            data = np.ascontiguousarray(tokens[base:end]).data.cast("B")
            self._write(self._file, data)
            self._hash.update(data)
            self._tokens += end - base
            done = fits

    def close(self) -> list[dict]:
        """Finish the last shard. Returns one entry for `data.json` a shard: file, source, tokens, documents, bytes,
        dtype, checksum. A source without documents has none."""
        if self._file is not None:
            self._finish()
        return self.shards

    def _open(self):
        self._path = self.directory / f"{self.stem}-{len(self.shards):05d}.tokens"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "wb")
        except OSError as error:
            raise WorkError(f"{self._path}: cannot be written: {error.strerror}") from None
        self._tokens, self._docs, self._hash = 0, [], xxhash.xxh3_128()

    def _write(self, file, data):
        try:
            file.write(data)
        except OSError as error:
            raise WorkError(f"{self._path}: cannot be written: {error.strerror}") from None

    def _finish(self):
        docs = np.concatenate(self._docs)
        self._hash.update(docs.data.cast("B"))
        try:
            with self._file as file:
                file.flush()
                os.fsync(file.fileno())
            with open(self._path.with_suffix(".docs"), "wb") as file:
                file.write(docs.data.cast("B"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise WorkError(f"{self._path}: cannot be written: {error.strerror}") from None
        self._file = None
        self.shards.append({
            "file": self._path.name, "source": self.source, "tokens": self._tokens, "documents": len(docs),
            "bytes": int(docs[:, 1].sum()), "dtype": self.dtype.name, "checksum": self._hash.hexdigest(),
        })
