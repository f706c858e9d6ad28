"""Pairs of texts to a data directory: read, clean, drop duplicates, split, one tokenizer for both sides, write shards.

A pair is stored as two documents, source and target, that follow each other (`data.pairs` reads them). Where the
publisher has split, that split is kept, and its validation and test pairs are never dropped, save those with an empty
side: figures on them compare with others'. Otherwise pairs go by a stable hash of their source, so the same source is
never on both sides of a split.
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .. import recipe
from ..errors import RequestError
from ..progress import Progress
from .card import splits_and_tokenizer
from .clean import repair
from .corpus import Spooled
from .dedup import digest, repeated
from .encode import begin_id
from .lexicon import make_tokenizer
from .pair_files import PairListing, list_pairs, read_pairs
from .shard_writer import ShardWriter, token_dtype
from .sources import counted
from .split import PARTS, by_hash
from .work import encode_texts

LIMITS = ("empty", "min_chars", "max_chars", "max_ratio")
BATCH = 2 << 20  # bytes of text in a spooled file
ROW = 6  # numbers that are held of each pair
ORDER = ("test", "val", "train")  # of two equal pairs the first is kept, and training must not hold test pairs


@dataclass(frozen=True)
class PairSourceListing:
    """A source's files, by the part they were published as."""

    name: str
    parts: dict[str, PairListing]

    def fingerprint(self) -> str:
        """Changes when a file is written to or another one is named."""
        stamps = [[part, listing.stamp()] for part, listing in self.parts.items()]
        return hashlib.blake2b(json.dumps(stamps).encode(), digest_size=16).hexdigest()


@dataclass
class Gathered:
    """All clean pairs, on disk in `spooled`: (N, 2) sizes in bytes of their sides, digests of the pair, a hash of the
    source, and the part they were published as (0 train, 1 val, 2 test)."""

    spooled: list[Spooled] = field(default_factory=list)
    sizes: np.ndarray | None = None
    digests: np.ndarray | None = None
    source_hashes: np.ndarray | None = None
    published: np.ndarray | None = None
    counts: Counter = field(default_factory=Counter)
    raw_bytes: Counter = field(default_factory=Counter)

    def texts(self, wanted: np.ndarray) -> Iterator[tuple[Spooled, np.ndarray, list[bytes]]]:
        """The pairs with `wanted` (N,) bool, a spooled file at a time: it, their numbers, and both sides of each."""
        for batch in self.spooled:
            numbers = np.flatnonzero(wanted[batch.first : batch.first + batch.n]) + batch.first
            if len(numbers):
                data, sizes = batch.path.read_bytes(), self.sizes[batch.first : batch.first + batch.n].reshape(-1)
                ends = np.cumsum(sizes)
                sides = np.repeat(2 * (numbers - batch.first), 2) + np.tile([0, 1], len(numbers))
                yield batch, numbers, [data[ends[i] - sizes[i] : ends[i]] for i in sides.tolist()]


def pair_files(data: recipe.Data) -> Iterator[recipe.PairFiles]:
    for source in data.pairs.values():
        yield from (files for files in (source.train, source.val, source.test) if files)


def list_pair_sources(data: recipe.Data) -> list[PairSourceListing]:
    """Raises RequestError for a file that is missing, empty or of no kind that is read."""
    return [
        PairSourceListing(name, {
            part: list_pairs(files, f"data.pairs.{name}.{part}") for part in ORDER if (files := getattr(source, part))
        })
        for name, source in data.pairs.items()
    ]


def prepare_pairs(data: recipe.Data, tokenizer: recipe.Tokenizer, listings: list[PairSourceListing], target: Path,
                  progress: Progress) -> dict:
    """Shards and tokenizer in `target`, and what data.json says of them; clean text is left in `target/spool`."""
    (target / "spool").mkdir()
    pairs = _gather(data, listings, target / "spool", progress)
    duplicate = repeated(pairs.digests) & (pairs.published == 0) if data.exact_duplicates else np.zeros(len(pairs.sizes), bool)
    rule, parts = _split(data, listings, pairs)
    parts[duplicate] = -1
    _check_parts(data, listings, parts)
    lexicon = make_tokenizer(tokenizer, _sample(pairs, parts == 0, tokenizer.sample_bytes), progress, closed=True)
    lexicon.save(target / "tokenizer")
    shards = _write(data, pairs, parts, lexicon, target, progress)
    kept = parts >= 0
    sizes, counts = pairs.sizes.sum(1), pairs.counts

    def count(which):
        return {"documents": int(which.sum()), "bytes": int(sizes[which].sum())}

    made = splits_and_tokenizer(shards, lexicon, begin_id(lexicon))
    for part in made["splits"].values():  # shards count texts; people count pairs
        for total in (part, *part["sources"].values()):
            total["documents"] //= 2
    return {
        **made, "documents_are": "pairs",
        "sources": {x.name: {"path": ", ".join(str(p) for p in x.parts["train"].paths), "bytes": pairs.raw_bytes[x.name],
                             "files": sum(len(part.paths) for part in x.parts.values()), "fingerprint": x.fingerprint()}
                    for x in listings},
        "steps": {
            "read": {"documents": counts["pairs in"], "bytes": sum(pairs.raw_bytes.values())},
            "repaired": {name: n for name, n in sorted(counts.items())
                         if not name.startswith((*LIMITS, "pairs in"))},
            "dropped": {name: {"documents": counts[name], "bytes": counts[f"{name} bytes"]} for name in LIMITS},
            "exact_duplicates": count(duplicate),
            "kept": count(kept),
        },
        "split": rule,
        "examples": _examples(pairs, kept),
    }


def _gather(data: recipe.Data, listings: list[PairSourceListing], spool: Path, progress: Progress) -> Gathered:
    """Read and clean everything into the folder `spool`."""
    out, table = Gathered(), array("Q")  # a row a pair: sizes, digest, hash of the source, part
    known = [part.bytes for listing in listings for part in listing.parts.values()]
    with progress.task("reading and cleaning pairs", None if None in known else sum(known), "B") as task:
        for listing in listings:
            for part, files in listing.parts.items():
                pairs = _clean(read_pairs(files, out.counts), data, part, listing.name, out)
                for batch in _batches(pairs):
                    first, path = len(table) // ROW, spool / f"{len(out.spooled):06d}.pairs"
                    path.write_bytes(b"".join(side for sides in batch for side in sides))
                    for source, target in batch:
                        both, alone = digest(source + b"\x1e" + target), digest(source)[0]
                        table.extend((len(source), len(target), *both, alone, PARTS.index(part)))
                    out.spooled.append(Spooled(path, listing.name, first, len(batch)))
                    size = sum(len(side) + 1 for sides in batch for side in sides)
                    task.advance(size, pairs=f"{len(table) // ROW:,}")
    if not table:
        lost = "; ".join(f"{name} {counted(out.counts[name], 'pair')}" for name in LIMITS if out.counts[name])
        where = ", ".join(str(path) for x in listings for part in x.parts.values() for path in part.paths)
        raise RequestError(f"{where}: no pair is left after cleaning; dropped by {lost or 'nothing: there was none'}")
    rows = np.frombuffer(table, np.uint64).reshape(-1, ROW)
    out.sizes, out.digests, out.source_hashes = rows[:, :2].astype(np.int64), rows[:, 2:4], rows[:, 4]
    out.published = rows[:, 5].astype(np.int8)
    return out


def _batches(pairs: Iterator[list[bytes]]) -> Iterator[list[list[bytes]]]:
    """Pairs in lists of about BATCH bytes."""
    batch, size = [], 0
    for sides in pairs:
        batch.append(sides)
        size += sum(map(len, sides))
        if size > BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _clean(pairs: Iterable, data: recipe.Data, part: str, source: str, out: Gathered) -> Iterator[list[bytes]]:
    """Both sides of the pairs that are kept, as UTF-8."""
    for _, *raw in pairs:
        texts = []
        for text in raw:
            out.raw_bytes[source] += len((text or "").encode("utf-8", "replace"))
            texts.append(repair((text or "").strip(), data.clean, out.counts)[0].strip())
        sides = [text.encode() for text in texts]
        out.counts["pairs in"] += 1
        why = _unfit(texts, data.pair_limits, part)
        if why:
            out.counts[why] += 1
            out.counts[f"{why} bytes"] += sum(map(len, sides))
        else:
            yield sides


def _unfit(texts: list[str], limits: recipe.PairLimits, part: str) -> str | None:
    """The name of the first limit that a pair fails, or None."""
    short, long = sorted(map(len, texts))
    if not short:
        return "empty"
    if part != "train":
        return None
    if short < limits.min_chars:
        return "min_chars"
    if limits.max_chars and long > limits.max_chars:
        return "max_chars"
    return "max_ratio" if limits.max_ratio and long > limits.max_ratio * short else None


def _split(data: recipe.Data, listings: list[PairSourceListing], pairs: Gathered) -> tuple[dict, np.ndarray]:
    """The rule as data.json has it, and the part of each pair."""
    parts = pairs.published.copy()
    for listing in listings:
        missing = [part for part in ("val", "test") if part not in listing.parts]
        weights = [f if part in ("train", *missing) else 0.0 for part, f in zip(PARTS, data.fractions)]
        mine = np.zeros(len(parts), bool)
        for batch in pairs.spooled:
            mine[batch.first : batch.first + batch.n] |= batch.source == listing.name
        mine &= pairs.published == 0
        parts[mine] = by_hash(pairs.source_hashes[mine], tuple(w / sum(weights) for w in weights))
    published = sorted({part for listing in listings for part in listing.parts if part != "train"}, key=PARTS.index)
    return {"rule": "hash", "fractions": list(data.fractions), "published": published}, parts


def _check_parts(data: recipe.Data, listings: list[PairSourceListing], parts: np.ndarray) -> None:
    for number, (part, fraction) in enumerate(zip(PARTS, data.fractions)):
        if not (parts == number).any() and (fraction or any(part in x.parts for x in listings)):
            raise RequestError(f"data.pairs: {counted(int((parts >= 0).sum()), 'pair')} leave nothing for {part} (a fraction "
                               f"of {fraction:g}); give more pairs, files for {part}, or another data.fractions")


def _sample(pairs: Gathered, training: np.ndarray, n_bytes: int) -> Iterator[str]:
    """Both sides of the training pairs: all, or an even sample by their hashes, of about `n_bytes`."""
    share = n_bytes / max(int(pairs.sizes[training].sum()), 1)
    if share < 1:  # by the other half of the pair's hash
        training = training & (pairs.digests[:, 1] < np.uint64(share * 2.0**64))
    for _, _, sides in pairs.texts(training):
        yield from (side.decode() for side in sides)


def _write(data: recipe.Data, pairs: Gathered, parts: np.ndarray, tokenizer, out: Path, progress: Progress) -> dict:
    """Shards by part; returns their entries for data.json."""
    writers: dict[tuple[int, str], ShardWriter] = {}
    begin, dtype = begin_id(tokenizer), token_dtype(tokenizer.vocab_size)
    with progress.task("tokenizing", int(pairs.sizes[parts >= 0].sum()), "B") as task:
        for batch, numbers, sides in pairs.texts(parts >= 0):
            tokens, lengths = encode_texts(tokenizer, sides, dtype, begin)
            sizes = pairs.sizes[numbers].reshape(-1)
            for part in np.unique(parts[numbers]):
                mine = np.repeat(parts[numbers] == part, 2)
                if (part, batch.source) not in writers:
                    writers[part, batch.source] = ShardWriter(out / PARTS[part], batch.source, tokenizer.vocab_size,
                                                              data.shard_tokens)
                writers[part, batch.source].add_many(tokens[np.repeat(mine, lengths)], lengths[mine], sizes[mine])
            task.advance(int(sizes.sum()))
    shards: dict[str, list[dict]] = {part: [] for part in PARTS}
    for (part, _), writer in writers.items():
        shards[PARTS[part]] += writer.close()
    return shards


def _examples(pairs: Gathered, kept: np.ndarray, n: int = 3) -> list[dict]:
    """A few pairs from all over, as they are after cleaning."""
    numbers = np.flatnonzero(kept)
    wanted = np.zeros(len(kept), bool)
    wanted[numbers[np.linspace(0, len(numbers) - 1, min(n, len(numbers))).astype(int)]] = True
    out = []
    for batch, chosen, sides in pairs.texts(wanted):
        for i, number in enumerate(chosen.tolist()):
            text = "\n→ ".join(side.decode() for side in sides[2 * i : 2 * i + 2])
            out.append({"name": f"pair {number}", "source": batch.source, "text": text[:400]})
    return out
