"""From a corpus to a data directory: read, clean, deduplicate, split, train or load the tokenizer, tokenize, drop
overlap, write shards.

Two passes with the clean text spooled on disk in between, so that memory is flat whatever the corpus's size. All is
written beside the target and renamed at the end, `data.json` last: a data directory is whole or absent.
"""

import errno
import hashlib
import json
import os
import shutil
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
from .encode import Encoder, begin_id
from .sources import Listing, list_source
from .workers import Workers, cores

FORMAT = 1  # of a data directory; a new one makes older directories out of date
SMALL = 2_000_000  # bytes; below, worker processes would cost more than they bring


def prepare(data: recipe.Data, tokenizer: recipe.Tokenizer, out: str | Path, seed: int = 1337,
            progress: Progress = Progress()) -> dict:
    """Make the data directory `out`; returns the content of its `data.json`. Returns at once if it is up to date.

    `seed` is part of the interface of all stages, but nothing here is drawn at random: the split and the tokenizer's
    sample go by the hash of each document, so that they stay as they are when documents are added.

    Raises RequestError that names the source at fault; WorkError when the disk is full. In both cases, and when
    interrupted, `out` is as it was before.
    """
    out = Path(out).expanduser()
    listings = _listings(data, out)
    mark = _fingerprint(data, tokenizer, listings)
    ready = read_card(out)
    if ready and ready["fingerprint"] == mark:
        progress.say(f"{out}: up to date")
        return ready
    if out.exists() and ready is None and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"{out}: not a data directory, so it is not replaced; name a new folder")
    sizes = [listing.bytes for listing in listings]
    small = None not in sizes and sum(sizes) < SMALL
    with _beside(out) as target, Workers(0 if small else data.workers or cores()) as workers:
        spool = target / "spool"
        spool.mkdir()
        corpus = collect(data, listings, spool, workers, progress)
        rule, parts = _split(data, corpus, progress)
        lexicon = _tokenizer(tokenizer, data, corpus, parts, progress)
        lexicon.save(target / "tokenizer")
        encoded = Encoder(data, corpus, parts, lexicon, target, spool).run(workers, progress)
        _check_parts(data, encoded.shards, corpus)
        result = card(FORMAT, mark, data, listings, corpus, rule, lexicon, begin_id(lexicon), encoded)
        shutil.rmtree(spool)
        with open(target / "data.json", "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
    return result


def fingerprint(data: recipe.Data, tokenizer: recipe.Tokenizer, seed: int = 1337, out: str | Path | None = None) -> str:
    """What decides the content of a data directory: the recipe's sections and the files behind them (names, sizes,
    times). Equal to data.json's `fingerprint` when it is up to date. `out`: as for `prepare`."""
    return _fingerprint(data, tokenizer, _listings(data, Path(out).expanduser() if out else None))


def up_to_date(data: recipe.Data, tokenizer: recipe.Tokenizer, out: str | Path) -> bool:
    """Whether `prepare` would have nothing to do."""
    ready = read_card(Path(out).expanduser())
    return bool(ready) and ready["fingerprint"] == fingerprint(data, tokenizer, out=out)


def read_card(out: Path) -> dict | None:
    """The content of `out/data.json`, None if there is none that can be read."""
    try:
        content = json.loads((out / "data.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "fingerprint" in content else None


def _listings(data: recipe.Data, out: Path | None) -> list[Listing]:
    named = data.sources()
    if not named:
        raise RequestError("data.corpus: names no text; give a file, a folder or python:stdlib")
    return [list_source(name, source.path, source.text_key, out) for name, source in named.items()]


def _fingerprint(data: recipe.Data, tokenizer: recipe.Tokenizer, listings: list[Listing]) -> str:
    rules = data.model_dump(mode="json", exclude={"corpus", "workers"})
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
        why = f"{n} document{'s are' if n > 1 else ' is'} too few for a split by document"
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


def _tokenizer(wanted: recipe.Tokenizer, data: recipe.Data, corpus: Corpus, parts: np.ndarray, progress: Progress):
    """Loaded, or trained on training text: all of it, or an even sample by the documents' hashes."""
    if wanted.path:
        from ..tokens.load import load

        return load(wanted.path)
    from ..tokens.train import train

    training = (parts == 0) | (parts == 3)
    share = wanted.sample_bytes / max(int(corpus.sizes[training].sum()), 1)
    if share < 1:  # by the hash's other half: the first half decided the split
        training &= corpus.digests[:, 1] < np.uint64(share * 2.0**64)

    def texts():
        left = wanted.sample_bytes
        for number, data_ in corpus.texts(training):
            text = data_.decode()
            if parts[number] == 3:
                text = split.by_tail(text, data.fractions)[0]
            if left <= 0:
                return
            left -= len(data_)
            yield text

    return train(texts(), wanted.kind, wanted.vocab_size, progress)


@contextmanager
def _beside(out: Path):
    """A fresh folder beside `out` that takes its place at the end; on any failure it is removed, `out` untouched."""
    target = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in [*out.parent.glob(f"{out.name}.tmp-*"), *out.parent.glob(f"{out.name}.old-*")]:
            pid = left.name.rpartition("-")[2]
            if pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
                shutil.rmtree(left)  # of a run that was killed
        target.mkdir()
    except OSError as error:
        raise RequestError(f"{out}: cannot be written: {error.strerror}") from None
    try:
        yield target
        old = out.with_name(f"{out.name}.old-{os.getpid()}")
        if out.exists():
            out.rename(old)
        target.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:  # what is read has errors of its own, so this is about what is written
        full = "; about three times the corpus's size is needed" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise WorkError(f"{out}: cannot be written: {error.strerror or error}{full}") from None
    finally:
        shutil.rmtree(target, ignore_errors=True)
