"""From a corpus to a data directory: read, clean, deduplicate, split, train or load the tokenizer, tokenize, drop
overlap, write shards.

Two passes with the clean text spooled on disk in between, so that memory is flat whatever the corpus's size. All is
written beside the target, into a hidden folder that carries our mark, and renamed at the end: a data directory is
whole or absent, and nothing without the mark is ever removed.
"""

import errno
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Collection
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from .. import recipe
from ..errors import RequestError, WorkError
from ..progress import Progress, amount
from . import split
from .card import card
from .corpus import Corpus, collect
from .encode import Encoded, Encoder, begin_id
from .lexicon import make_tokenizer
from .prepare_pairs import PairSourceListing, list_pair_sources, pair_files, prepare_pairs
from .shards import VERIFIED, DataDir
from .sources import Listing, counted, list_source
from .workers import Workers, cores

FORMAT = 1  # of a data directory; a new one makes older directories out of date
SMALL = 2_000_000  # bytes; below, worker processes would cost more than they bring
MARK = ".llmwright-unfinished"  # in a folder that is being written, or replaced: the next run may remove it
OURS = {"data.json", "tokenizer", *split.PARTS, MARK, VERIFIED}  # what a data directory holds
# A token's loss scatters about as much as its mean, so 20,000 tokens give the mean to 0.7 %; assumed, not measured.
FEW_TOKENS, FEW_DOCUMENTS = 20_000, 5


def prepare(data: recipe.Data, tokenizer: recipe.Tokenizer, out: str | Path, seed: int = 1337,
            progress: Progress = Progress(), exclude: Collection[str | Path] = ()) -> dict:
    """Make the data directory `out`; returns the content of its `data.json`. Returns at once if it is up to date.

    `seed` is part of the interface of all stages, but nothing here is drawn at random: the split and the tokenizer's
    sample go by the hash of each document, so that they stay as they are when documents are added. `exclude`: folders
    within the corpus that are no part of it, as `out` is none.

    Raises RequestError that names the source at fault, or says why `out` cannot be replaced; WorkError when the disk is full. In both cases, and when
    interrupted, `out` is as it was before.
    """
    shown, out = out, Path(out).expanduser().resolve()  # what a link leads to is replaced, not the link
    ready = read_card(out)
    _check_is_ours(out, ready)
    _check_sources_are_outside(data, out)
    listings = _listings(data, [out, *exclude])
    mark = _fingerprint(data, tokenizer, listings)
    if ready and ready["fingerprint"] == mark and _is_whole(out):
        progress.say(f"{shown}: up to date")
        return ready
    make = prepare_pairs if data.pairs else _prepare_text
    with _beside(out) as target:
        result = {"format": FORMAT, "fingerprint": mark, **make(data, tokenizer, listings, target, progress)}
        shutil.rmtree(target / "spool")
        with open(target / "data.json", "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
    return result


def _prepare_text(data: recipe.Data, tokenizer: recipe.Tokenizer, listings: list[Listing], target: Path,
                  progress: Progress) -> dict:
    """Shards and tokenizer in `target`, and what data.json says of them."""
    for listing in listings:
        if line := listing.other_kinds_line():
            progress.say(line)
    sizes = [listing.bytes for listing in listings]
    small = None not in sizes and sum(sizes) < SMALL
    with Workers(0 if small else data.workers or cores()) as workers:
        spool = target / "spool"
        spool.mkdir()
        corpus = collect(data, listings, spool, workers, progress)
        rule, parts = _split(data, corpus, progress)
        lexicon = _tokenizer(tokenizer, data, corpus, parts, progress)
        lexicon.save(target / "tokenizer")
        encoded = Encoder(data, corpus, parts, lexicon, target, spool).run(workers, progress)
        _check_parts(data, encoded.shards, corpus)
        _say_what_is_little(data, rule, encoded, int(corpus.sizes[parts == 0].sum()), progress)
        return card(listings, corpus, rule, lexicon, begin_id(lexicon), encoded)


def fingerprint(data: recipe.Data, tokenizer: recipe.Tokenizer, seed: int = 1337, out: str | Path | None = None,
                exclude: Collection[str | Path] = ()) -> str:
    """What decides the content of a data directory: the recipe's sections and the files behind them (names, sizes,
    times). Equal to data.json's `fingerprint` when it is up to date. `out`, `exclude`: as for `prepare`."""
    return _fingerprint(data, tokenizer, _listings(data, [out, *exclude] if out else exclude))


def up_to_date(data: recipe.Data, tokenizer: recipe.Tokenizer, out: str | Path,
               exclude: Collection[str | Path] = ()) -> bool:
    """Whether `prepare` would have nothing to do: nothing changed, and every file is there in its size."""
    out = Path(out).expanduser()
    ready = read_card(out)
    mark = fingerprint(data, tokenizer, out=out, exclude=exclude)  # also where it is not needed: it finds faults
    return bool(ready) and ready["fingerprint"] == mark and _is_whole(out)


def _is_whole(out: Path) -> bool:
    try:
        data = DataDir.open(out)
        for part, content in data.card["splits"].items():
            if content["shards"]:
                data.split(part)
    except RequestError:
        return False
    return (data.tokenizer_path / "tokenizer.json").is_file()


def read_card(out: Path) -> dict | None:
    """The content of `out/data.json`, None if there is none that can be read."""
    try:
        content = json.loads((out / "data.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "fingerprint" in content else None


def _check_is_ours(out: Path, ready: dict | None) -> None:
    """`out` is replaced as a whole, so it must be new, empty, or a data directory with nothing else in it."""
    if not out.exists():
        return
    entries = {entry.name for entry in out.iterdir()} if out.is_dir() else {""}
    if entries and ready is None and MARK not in entries:
        raise RequestError(f"{out}: not a data directory, so it is not replaced; name a new folder")
    if others := sorted(entries - OURS):
        some = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        raise RequestError(f"{out}: holds {some} besides the data, so it is not replaced; move "
                           f"{'it' if len(others) == 1 else 'them'} elsewhere or name a new folder")


def _check_sources_are_outside(data: recipe.Data, out: Path) -> None:
    paths = [source.path for source in data.sources().values()]
    paths += [path for files in pair_files(data) for path in (files.source, files.target, files.path) if path]
    for path in paths:
        if not path.startswith(("python:", "hub:")):
            if Path(path).expanduser().resolve().is_relative_to(out):
                raise RequestError(f"{path}: lies in the output {out}, which is replaced as a whole; name "
                                   "another folder for the output")


def _listings(data: recipe.Data, exclude: Collection[str | Path]) -> list[Listing] | list[PairSourceListing]:
    named = data.sources()
    if data.pairs:
        return list_pair_sources(data)
    if not named:
        raise RequestError("data.corpus: names no text; give a file, a folder or python:stdlib")
    exclude = [Path(path).expanduser() for path in exclude]
    return [list_source(name, source.path, source.text_key, exclude) for name, source in named.items()]


def _fingerprint(data: recipe.Data, tokenizer: recipe.Tokenizer, listings: list) -> str:
    aside = {"corpus", "workers", "text_key"} | (set() if data.pairs else {"pairs", "pair_limits"})
    rules = data.model_dump(mode="json", exclude=aside)  # the listings have paths and key
    parts = [FORMAT, rules, tokenizer.model_dump(mode="json"), [(x.name, x.fingerprint()) for x in listings]]
    if tokenizer.path and (path := Path(tokenizer.path).expanduser()).exists():
        files = sorted(path.glob("*token*")) + sorted(path.glob("*vocab*")) if path.is_dir() else [path]
        parts.append([(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files])
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _split(data: recipe.Data, corpus: Corpus, progress: Progress) -> tuple[dict, np.ndarray]:
    """The rule as data.json has it, and the part of each document (−1: a duplicate).

    A corpus of so few documents that some part would expect less than one, or got none, is cut by `tail` instead:
    every part then has its share of the text, whatever the number of documents.
    """
    rule = {"rule": data.split, "fractions": list(data.fractions)}
    parts = split.by_hash(corpus.digests[:, 0], data.fractions).astype(np.int8)
    wanted = [i for i, fraction in enumerate(data.fractions) if fraction]
    n = int(corpus.kept.sum())
    few = n * min(data.fractions[i] for i in wanted) < 1 or not set(wanted) <= set(parts[corpus.kept].tolist())
    if data.split == "hash" and few:
        why = f"{counted(n, 'document')} {'is' if n == 1 else 'are'} too few for a split by document"
        rule |= {"rule": "tail", "asked": "hash", "why": why}
        progress.say(f"{why}: each is cut into its first part for training and its last for validation and test")
    if rule["rule"] == "tail":
        parts[:] = 3
    parts[~corpus.kept] = -1
    return rule, parts


def _check_parts(data: recipe.Data, shards: dict[str, list[dict]], corpus: Corpus) -> None:
    for part, fraction in zip(split.PARTS, data.fractions):
        if fraction and not shards[part]:
            size = amount(int(corpus.sizes[corpus.kept].sum()), "B")
            raise RequestError(
                f"data.corpus: {size} of text leave nothing for {part} (a fraction of {fraction}); give more text, "
                f"another data.fractions, or a larger data.overlap_tokens"
            )


def _say_what_is_little(data: recipe.Data, rule: dict, encoded: Encoded, n_bytes: int, progress: Progress) -> None:
    """`n_bytes`: of the training text before overlap was taken out."""
    gone = encoded.overlap
    if gone["documents"]:
        share = gone["bytes"] / n_bytes
        line = (f"overlap with the evaluation text: {counted(gone['documents'], 'training document')} left out, "
                f"{amount(gone['bytes'], 'B')}, {share:.1%} of the training text")
        if share > 0.2:
            line += f"; that is much: a larger data.overlap_tokens than {data.overlap_tokens} keeps more, 0 keeps all"
        progress.say(line)
    for part, fraction in list(zip(split.PARTS, data.fractions))[1:]:
        n = {key: sum(shard[key] for shard in encoded.shards[part]) for key in ("tokens", "documents")}
        by_document = rule["rule"] == "hash"  # cut by tail, one long document is as good as many
        if fraction and (n["tokens"] < FEW_TOKENS or by_document and n["documents"] < FEW_DOCUMENTS):
            least = f"{FEW_TOKENS:,} tokens" + f" or {FEW_DOCUMENTS} documents" * by_document
            progress.say(f"{part} has {counted(n['tokens'], 'token')} in {counted(n['documents'], 'document')}: what is "
                         f"measured on less than {least} is unsure; give more text, or another data.fractions")


def _tokenizer(wanted: recipe.Tokenizer, data: recipe.Data, corpus: Corpus, parts: np.ndarray, progress: Progress):
    """Loaded, or trained on training text: all of it, or an even sample by the documents' hashes."""
    training = (parts == 0) | (parts == 3)
    share = wanted.sample_bytes / max(int(corpus.sizes[training].sum()), 1)
    if share < 1:  # by the hash's other half: the first half decided the split
        training &= corpus.digests[:, 1] < np.uint64(share * 2.0**64)

    def texts():
        for number, data_ in corpus.texts(training):
            text = data_.decode()
            yield split.by_tail(text, data.fractions)[0] if parts[number] == 3 else text

    return make_tokenizer(wanted, texts(), progress)


@contextmanager
def _beside(out: Path):
    """A fresh folder beside `out` that takes its place at the end; on any failure it is removed, `out` untouched."""
    target = out.with_name(f".{out.name}.llmwright-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in out.parent.glob(f".{glob.escape(out.name)}.llmwright-*"):
            pid = left.name.rpartition("-")[2]
            if pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))) and _marked(left):
                shutil.rmtree(left)  # of a run that was killed
        target.mkdir()
        (target / MARK).touch()
    except OSError as error:
        raise RequestError(f"{out}: cannot be written: {error.strerror}") from None
    try:
        yield target
        _put(target, out)
    except OSError as error:  # what is read has errors of its own, so this is about what is written
        full = "; about three times the corpus's size is needed" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise WorkError(f"{out}: cannot be written: {error.strerror or error}{full}") from None
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _put(target: Path, out: Path) -> None:
    """Bring what is in `target` to `out`. The mark goes last, so that a run killed here leaves nothing unmarked."""
    if out.exists() and out == Path.cwd():  # a folder someone stands in keeps its identity: its content is exchanged
        (out / MARK).touch()
        for name in sorted(OURS - {MARK}):  # data.json is the first to go
            shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink(missing_ok=True)
        for entry in sorted(target.iterdir(), key=lambda entry: entry.name == "data.json"):  # and the last to come
            entry.rename(out / entry.name)
        (out / MARK).unlink()
        return
    old = out.with_name(f".{out.name}.llmwright-old-{os.getpid()}")
    if out.exists():
        (out / MARK).touch()
        out.rename(old)
    target.rename(out)
    (out / MARK).unlink()
    if old.exists():
        shutil.rmtree(old, ignore_errors=True)


def _marked(folder: Path) -> bool:
    """Whether a run of ours was writing there; an empty one was made by a run that was killed before it wrote the mark."""
    return folder.is_dir() and not folder.is_symlink() and ((folder / MARK).is_file() or not any(folder.iterdir()))
