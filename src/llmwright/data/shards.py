"""Tokenized documents on disk: memory-mapped shards with an index of document starts.

A data directory holds `tokenizer/`, one folder a split (`train/ val/ test/`) and `data.json`. A shard is two raw
little-endian files: `<source>-00000.tokens` (uint16, or uint32 beyond 65,536 ids) and `<source>-00000.docs` (int64
pairs: first token in this shard, UTF-8 bytes of the text). Its checksum in `data.json` is the xxh3-128 of the first
file's bytes followed by the second's. A stored document begins with the end-of-text id, which is also the beginning
of text: `[eot] t1 … tn`. So the token after any token in the concatenated shards is its target, at a document's end
too, and a split is read through one address space: source after source, shard after shard, one more eot at the end.
Where a tokenizer begins and ends texts with two different tokens, eot is the first, and the other is the document's last.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xxhash

from ..errors import RequestError
from ..progress import Progress
from .shard_writer import ShardWriter, token_dtype

__all__ = ["DataDir", "ShardWriter", "SourceView", "Split", "open_split"]

VERIFIED = ".verified.json"  # in a data directory: the shards that were found whole, as they were then
_ENTRY = {"file": str, "source": str, "tokens": int, "documents": int, "bytes": int, "dtype": str, "checksum": str}


class SourceView:
    """The documents of one source within a split. `begin` is its first token's address in the split."""

    def __init__(self, name: str, begin: int):
        self.name, self.begin = name, begin
        self.n_tokens = self.n_documents = self.n_bytes = 0
        self._shards: list[tuple[int, int, np.ndarray]] = []  # first address, tokens, docs (n, 2)
        self._firsts = [0]  # the first document of each shard

    def _add(self, entry: dict, docs: np.ndarray):
        self._shards.append((self.begin + self.n_tokens, entry["tokens"], docs))
        self.n_tokens += entry["tokens"]
        self.n_documents += entry["documents"]
        self.n_bytes += entry["bytes"]
        self._firsts.append(self.n_documents)

    def spans(self, documents: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First address in the split, length in tokens and size of the text in bytes of each document asked for
        (default: all, in stored order): three int64 arrays."""
        if documents is None:
            documents = np.arange(self.n_documents)
        shard_of = np.searchsorted(self._firsts, documents, "right") - 1
        start, length, size = (np.empty(len(documents), np.int64) for _ in range(3))
        for number in np.unique(shard_of):
            where = np.flatnonzero(shard_of == number)
            address, tokens, docs = self._shards[number]
            local = documents[where] - self._firsts[number]
            first = docs[local, 0]
            last = local == len(docs) - 1
            end = np.where(last, tokens, docs[np.where(last, local, local + 1), 0])
            start[where], length[where], size[where] = address + first, end - first, docs[local, 1]
        return start, length, size


class Split:
    """One split, memory-mapped. Counts: `n_tokens`, `n_documents`, `n_bytes` (of text); `sources` by name."""

    def __init__(self, directory: Path, shards: list[dict], vocab_size: int, eot_id: int):
        self.directory, self.vocab_size, self.eot_id = Path(directory), vocab_size, eot_id
        self.sources: dict[str, SourceView] = {}
        self._entries: list[dict] = []
        self._tokens: list[np.ndarray] = []
        begins = [0]
        names = list(dict.fromkeys(entry["source"] for entry in shards))
        for entry in sorted(shards, key=lambda entry: names.index(entry["source"])):  # stable: order within a source
            source = self.sources.setdefault(entry["source"], SourceView(entry["source"], begins[-1]))
            tokens, docs = self._map(entry)
            source._add(entry, docs)
            self._entries.append(entry)
            self._tokens.append(tokens)
            begins.append(begins[-1] + entry["tokens"])
        self.n_tokens = begins[-1]
        self.n_documents = sum(source.n_documents for source in self.sources.values())
        self.n_bytes = sum(source.n_bytes for source in self.sources.values())
        self._tokens.append(np.array([eot_id], token_dtype(vocab_size)))  # what follows the last document
        self._begins = np.array(begins)

    def _map(self, entry: dict) -> tuple[np.ndarray, np.ndarray]:
        path = self.directory / entry["file"]
        dtype = token_dtype(self.vocab_size)
        if entry["dtype"] != dtype.name:
            raise RequestError(
                f"{path}: data.json says its tokens are {entry['dtype']}, but a vocabulary of {self.vocab_size} is "
                f"stored as {dtype.name}: prepare the data again"
            )
        parts = ((path, dtype, entry["tokens"], ()), (path.with_suffix(".docs"), "<i8", entry["documents"], (2,)))
        arrays = []
        for file, kind, count, rest in parts:
            expected = count * np.dtype(kind).itemsize * (rest[0] if rest else 1)
            try:
                size = file.stat().st_size
            except FileNotFoundError:
                raise RequestError(f"{file}: missing, though data.json lists it: prepare the data again") from None
            if size != expected:
                raise RequestError(
                    f"{file}: {size:,} bytes, but data.json says {expected:,}: it is damaged, prepare the data again"
                )
            # as a plain array: slicing numpy's memmap class costs several times more
            arrays.append(np.asarray(np.memmap(file, kind, "r", shape=(count, *rest))))
        return arrays[0], arrays[1]

    def take(self, addresses: np.ndarray) -> np.ndarray:
        """The tokens at these addresses, 0..n_tokens (the last is the final eot): int64, the same shape (one axis)."""
        if len(addresses) == 0:
            return np.empty(0, np.int64)
        low, high = np.searchsorted(self._begins, (addresses.min(), addresses.max()), "right") - 1
        if low == high:
            return self._tokens[low].take(addresses - self._begins[low]).astype(np.int64)
        out = np.empty(len(addresses), np.int64)
        shard_of = np.searchsorted(self._begins, addresses, "right") - 1
        order = np.argsort(shard_of, kind="stable")
        numbers, firsts = np.unique(shard_of[order], return_index=True)
        for number, where in zip(numbers, np.split(order, firsts[1:])):
            out[where] = self._tokens[number].take(addresses[where] - self._begins[number])
        return out

    def source(self, name: str) -> SourceView:
        if name not in self.sources:
            raise RequestError(f"{self.directory}: there is no source {name}; it has {', '.join(self.sources)}")
        return self.sources[name]

    def document(self, source: str, i: int) -> np.ndarray:
        """The stored tokens of one document: `[eot] t1 … tn`, int64."""
        start, length, _ = self.source(source).spans(np.array([i]))
        return self.take(np.arange(start[0], start[0] + length[0]))

    def lengths(self, source: str) -> np.ndarray:
        """Stored tokens of each document (the eot counted), int64."""
        return self.source(source).spans()[1]

    def verify(self) -> None:
        """Read everything once. Raises RequestError that names the first damaged file."""
        for shard in self.shards():
            self.verify_shard(shard)

    def shards(self) -> list[Path]:
        """The token file of each shard, in the order of the addresses."""
        return [self.directory / entry["file"] for entry in self._entries]

    def verify_shard(self, path: Path) -> None:
        """Read one of `shards()` once. Raises RequestError that names the damaged file."""
        number = self.shards().index(path)
        entry, tokens = self._entries[number], self._tokens[number]
        digest, highest, step = xxhash.xxh3_128(), 0, 1 << 22
        for at in range(0, len(tokens), step):
            chunk = tokens[at : at + step]
            digest.update(chunk.data.cast("B"))
            highest = max(highest, int(chunk.max()))
        docs_path = path.with_suffix(".docs")
        docs = np.fromfile(docs_path, "<i8").reshape(-1, 2)
        digest.update(docs.data.cast("B"))
        if digest.hexdigest() != entry["checksum"]:
            raise RequestError(
                f"{path}: its checksum (with {docs_path.name}) is not the one in data.json: "
                "it is damaged, prepare the data again"
            )
        if highest >= self.vocab_size:
            raise RequestError(f"{path}: holds the id {highest}, but the vocabulary has {self.vocab_size}")
        first = docs[:, 0]
        if len(first) and (first[0] != 0 or first[-1] >= len(tokens) or (np.diff(first) <= 0).any()):
            raise RequestError(f"{docs_path}: its document starts do not ascend from 0 to the last of {len(tokens):,} "
                               "tokens: prepare the data again")
        if (tokens[first] != self.eot_id).any():
            raise RequestError(f"{path}: a document does not begin with the end-of-text id {self.eot_id}")


class DataDir:
    """A prepared data directory: `.card` (data.json), `.split(name)`, `.tokenizer_path`, `.fingerprint`."""

    def __init__(self, path: Path, card: dict):
        self.path, self.card = path, card
        self.tokenizer_path = path / "tokenizer"
        # the card lists every shard's checksum, so its hash stands for all of the data
        canonical = json.dumps(card, sort_keys=True, separators=(",", ":"))
        self.fingerprint = xxhash.xxh3_128_hexdigest(canonical.encode())

    @classmethod
    def open(cls, path: str | Path) -> "DataDir":
        """Raises RequestError when `path` holds no readable data.json."""
        path = Path(path).expanduser()
        try:
            card = json.loads((path / "data.json").read_text(encoding="utf-8"))
            for name, kind in (("vocab_size", int), ("bos_id", int), ("splits", dict)):
                if not isinstance(card[name], kind):
                    raise TypeError
            for part, split in card["splits"].items():
                name = f"list of shards for the split {part}"
                if not isinstance(split["shards"], list) or not all(isinstance(s, dict) for s in split["shards"]):
                    raise TypeError
        except (FileNotFoundError, NotADirectoryError):
            raise RequestError(f"{path}: no data.json there; make one with llmwright prepare -o {path}") from None
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise RequestError(f"{path / 'data.json'}: cannot be read: {error}") from None
        except (KeyError, TypeError):
            raise RequestError(f"{path / 'data.json'}: has no {name}; prepare the data again") from None
        return cls(path, card)

    def split(self, name: str) -> Split:
        """Raises RequestError when the split is unknown, empty, or a shard is missing, truncated or of another type."""
        splits = self.card["splits"]
        if name not in splits:
            raise RequestError(f"{self.path}: there is no split {name}; it has {', '.join(splits) or 'none'}")
        shards = splits[name]["shards"]
        if not shards:
            raise RequestError(f"{self.path}: the split {name} is empty: prepare more text, or a larger share for it")
        for entry in shards:
            wrong = [key for key, kind in _ENTRY.items() if not isinstance(entry.get(key), kind)]
            if wrong:
                raise RequestError(f"{self.path / 'data.json'}: a shard of {name} has no right {', '.join(wrong)}; "
                                   "prepare the data again")
        return Split(self.path / name, shards, self.card["vocab_size"], self.card["bos_id"])

    def verify(self, names: Iterable[str] = ("train", "val"), progress: Progress = Progress()) -> None:
        """Read the shards of these splits and compare them with `data.json`.

        What was found whole is remembered in `.verified.json`, where it can be written, with each file's size, time
        and inode: while these stay, it is not read again. Raises RequestError that names the damaged file.
        """
        known = self._verified()
        shards = [(f"{name}/{shard.name}", split, shard, _stamp(shard))
                  for name in names for split in [self.split(name)] for shard in split.shards()]
        new = [entry for entry in shards if known.get(entry[0]) != entry[3]]
        if not new:
            return
        with progress.task("checking the data", sum(stamp[0] for *_, stamp in new), "B") as task:
            for name, split, shard, stamp in new:
                split.verify_shard(shard)
                known[name] = stamp
                task.advance(stamp[0])
        text = json.dumps({"fingerprint": self.fingerprint, "shards": known})
        beside = self.path / f"{VERIFIED}.{os.getpid()}"
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(self.path / VERIFIED)
        except OSError:
            pass  # a directory that is only read is read again

    def _verified(self) -> dict[str, list[int]]:
        """The stamps of the shards that were found whole for this very data.json."""
        try:
            found = json.loads((self.path / VERIFIED).read_text(encoding="utf-8"))
            return dict(found["shards"]) if found["fingerprint"] == self.fingerprint else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def _stamp(shard: Path) -> list[int]:
    """What changes when either file of a shard is written to or replaced."""
    files = [shard.stat(), shard.with_suffix(".docs").stat()]
    return [number for s in files for number in (s.st_size, s.st_mtime_ns, s.st_ino)]


def open_split(data_dir: str | Path, name: str) -> Split:
    """`DataDir.open(data_dir).split(name)`."""
    return DataDir.open(data_dir).split(name)
