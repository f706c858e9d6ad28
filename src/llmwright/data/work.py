"""What a worker does with a batch: first clean it, later tokenize it. Tasks are plain tuples and arrays, and this
module imports nothing heavy, so that workers start fast."""

import functools
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..recipe import Clean
from .clean import clean, decode, documents
from .dedup import digest
from .near import signatures
from .overlap import candidates, evaluation_hashes
from .read import Batch
from .shard_writer import token_dtype
from .split import by_tail


@dataclass
class CleanTask:
    batch: Batch
    rules: Clean
    near: bool
    spool: Path  # the clean texts go there, one after another; their names beside them with the suffix .names


@dataclass
class Cleaned:
    digests: np.ndarray  # (N, 2) uint64
    sizes: np.ndarray  # (N,) int64, UTF-8 bytes
    signatures: np.ndarray | None  # (N, 128) uint16
    counts: Counter


def clean_batch(task: CleanTask) -> Cleaned:
    """Decode, repair and filter a batch; spool what is left."""
    counts, texts, names = Counter(), [], []
    for name, text in _documents(task.batch, counts):
        counts["documents in"] += 1
        kept = clean(text, task.rules, counts)
        for i, (_, data) in enumerate(kept):
            texts.append(data)
            names.append(f"{name}#{i}" if len(kept) > 1 else name)
    task.spool.write_bytes(b"".join(texts))
    task.spool.with_suffix(".names").write_text(json.dumps(names))
    return Cleaned(
        np.array([digest(data) for data in texts], np.uint64).reshape(-1, 2),
        np.array([len(data) for data in texts], np.int64),
        signatures(texts) if task.near else None,
        counts,
    )


def _documents(batch: Batch, counts: Counter):
    for name, item in batch.items:
        if batch.kind == "jsonl":
            yield from _json_lines(name, item, batch.text_key, counts)
            continue
        text = decode(item, counts) if isinstance(item, (bytes, bytearray)) else item
        parts = documents(text)
        for i, part in enumerate(parts):
            yield (f"{name}@{i}" if len(parts) > 1 else name), part


def _json_lines(name: str, block: bytes, key: str, counts: Counter):
    file, number = name.rsplit(":", 1)
    for number, line in enumerate(decode(block, counts).split("\n"), int(number)):
        if not line or line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            counts["rows not JSON"] += 1
            continue
        text = row if isinstance(row, str) else row.get(key) if isinstance(row, dict) else None
        if isinstance(text, str):
            yield f"{file}:{number}", text
        else:
            counts["rows without text"] += 1


@dataclass
class TokenizeTask:
    spool: Path
    sizes: np.ndarray  # (N,) of all documents in the spool
    parts: np.ndarray  # (N,) int8: 0 train, 1 val, 2 test, 3 each document cut by `fractions`, −1 none
    fractions: tuple[float, float, float]
    tokenizer: Path
    vocab_size: int
    begin_id: int  # stands before every document
    end_id: int | None  # and behind it, where the tokenizer has another token for that
    overlap: int  # words in a row; 0: not looked for
    table: Path | None  # the filter of the evaluation text; None while that text itself is tokenized
    first: int  # the number of the first document


@dataclass
class Tokenized:
    """For each part: tokens one document after another, each from its beginning-of-text id; lengths; UTF-8 bytes;
    the documents' places in the batch."""

    tokens: list[np.ndarray]
    lengths: list[np.ndarray]
    n_bytes: list[np.ndarray]
    places: list[np.ndarray]
    hashes: np.ndarray | None = None  # of the evaluation text
    hits: np.ndarray | None = None  # of training text in it


def tokenize_batch(task: TokenizeTask) -> Tokenized:
    """Tokens of the documents that belong to a part, and what the search for overlap needs of them."""
    tokenizer = load_tokenizer(str(task.tokenizer))
    data = task.spool.read_bytes()
    ends = np.cumsum(task.sizes)
    texts: list[list[bytes]] = [[], [], []]
    places: list[list[int]] = [[], [], []]
    for i in np.flatnonzero(task.parts >= 0):
        text = data[ends[i] - task.sizes[i] : ends[i]]
        if task.parts[i] < 3:
            pieces = [(task.parts[i], text)]
        else:
            pieces = [(p, piece.encode()) for p, piece in enumerate(by_tail(text.decode(), task.fractions)) if piece]
        for part, piece in pieces:
            texts[part].append(piece)
            places[part].append(i)
    del data
    dtype = token_dtype(task.vocab_size)
    out = Tokenized([], [], [], [np.array(p, np.int64) for p in places])
    for part in range(3):
        tokens, lengths = encode_texts(tokenizer, texts[part], dtype, task.begin_id, task.end_id)
        out.tokens.append(tokens)
        out.lengths.append(lengths)
        out.n_bytes.append(np.array([len(text) for text in texts[part]], np.int64))
    if task.overlap and task.table:
        out.hits = candidates(_table(str(task.table)), texts[0], task.overlap, task.first + out.places[0])
    elif task.overlap:
        out.hashes = evaluation_hashes(texts[1] + texts[2], task.overlap)
    return out


def encode_texts(tokenizer, texts: list[bytes], dtype: np.dtype, begin_id: int, end_id: int | None = None
                 ) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of the texts one after another, each behind its `begin_id` and before its `end_id` if there is one; and
    their lengths with these, (N,)."""
    arrays = tokenizer.encode_batch([text.decode() for text in texts]) if texts else []
    ends = 0 if end_id is None else 1
    lengths = np.array([len(a) + 1 + ends for a in arrays], np.int64)
    tokens = np.empty(int(lengths.sum()), dtype)
    at = 0
    for array, length in zip(arrays, lengths.tolist()):
        tokens[at] = begin_id
        tokens[at + 1 : at + 1 + len(array)] = array
        if end_id is not None:
            tokens[at + length - 1] = end_id
        at += length
    return tokens, lengths


@functools.lru_cache(1)
def load_tokenizer(path: str):
    from ..tokens.load import load

    return load(path)


@functools.lru_cache(1)
def _table(path: str) -> np.ndarray:
    return np.asarray(np.memmap(path, np.uint64, "r"))
