"""What a corpus is made of: the files behind each named source, and a fingerprint of them.

A source is a file, a folder (read recursively in sorted order; hidden files and folders are left out), the standard
library's own modules, the pydoc topic pages, or a data set on the Hugging Face hub. Listing is cheap (names, sizes,
times), so a build can ask whether a corpus changed without reading it.
"""

import hashlib
import os
import platform
import stat
import sysconfig
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import RequestError

TEXT = (".txt", ".md", ".py")
ROWS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
COMPRESSED = (".gz", ".zst")

# python:stdlib leaves these folders out: tests, other people's packages, and machine-made files
_NOT_STDLIB = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "pydoc_data", "_bundled"}


@dataclass(frozen=True)
class File:
    """One file of a source. `name` is its path within the source, with `/`; `kind` its suffix without compression."""

    path: Path
    name: str
    kind: str
    size: int
    mtime_ns: int


@dataclass
class Listing:
    """A source's files. `direct`: the path named one file, so a fault in it is an error, not a file to skip."""

    name: str
    path: str
    text_key: str = "text"
    direct: bool = False
    files: list[File] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    skipped_names: list[str] = field(default_factory=list)
    other_kinds: Counter = field(default_factory=Counter)  # by ending, "" for none

    @property
    def bytes(self) -> int | None:
        """The size of its text as far as it is known beforehand: not on the hub, nor in a compressed file."""
        if self.path == "python:topics":
            return sum(len(text.encode()) for text in python_topics().values())
        packed = any(f.kind == ".parquet" or f.name.lower().endswith(COMPRESSED) for f in self.files)
        return sum(f.size for f in self.files) if self.files and not packed else None

    def skip(self, why: str, name: str) -> None:
        """Count a file that is left out; the first few are kept by name for the summary."""
        self.skipped[why] = self.skipped.get(why, 0) + 1
        if why == "other kinds":
            self.other_kinds[Path(name).suffix.lower()] += 1
        elif len(self.skipped_names) < 20:
            self.skipped_names.append(f"{name}: {why}")

    def other_kinds_line(self) -> str | None:
        """What a person should know of the folder's files that are no text for us; None when there are none."""
        if not self.other_kinds:
            return None
        endings = [ending or "no ending" for ending, _ in self.other_kinds.most_common(6)]
        more = ", …" if len(self.other_kinds) > len(endings) else ""
        files = counted(self.other_kinds.total(), "file")
        return f"{self.path}: {files} of other kinds left out ({', '.join(endings)}{more})"

    def fingerprint(self) -> str:
        """Changes when a file is added, removed, renamed or written to."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((self.path, self.text_key)).encode())
        if self.path.startswith("python:"):
            digest.update(platform.python_version().encode())
        for f in self.files:
            digest.update(repr((f.name, f.size, f.mtime_ns)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def counted(n: int, noun: str) -> str:
    """1 document, 2 documents."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def python_topics() -> dict[str, str]:
    """The texts behind Python's `help`, by topic."""
    from pydoc_data.topics import topics

    return topics


def kind_of(name: str) -> str:
    """`.jsonl` for `a.jsonl.gz`; the empty string for a name with no suffix that is known."""
    name = name.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return next((suffix for suffix in TEXT + ROWS if name.endswith(suffix)), "")


def list_source(name: str, path: str, text_key: str = "text", exclude: Collection[Path] = ()) -> Listing:
    """The files of the source `name` at `path`. Files under one of `exclude` (the output) are not part of a corpus.

    Raises RequestError for a path that is missing, empty, unreadable, or no corpus.
    """
    listing = Listing(name, path, text_key)
    if path.startswith("hub:"):
        if path.count("/") > 1 or not path.removeprefix("hub:").strip("/"):
            raise RequestError(f"data.corpus.{name}: {path} is no hub data set; write hub:owner/name")
        return listing
    if path == "python:topics":
        return listing
    if path == "python:stdlib":
        root = Path(sysconfig.get_path("stdlib"))
        listing.files = [f for f in _walk(root, listing, (), _NOT_STDLIB) if _is_stdlib_text(f)]
        listing.skipped, listing.skipped_names, listing.other_kinds = {}, [], Counter()
        if not listing.files:
            raise RequestError(f"python:stdlib: no Python sources under {root}; name a folder of text instead")
        return listing
    if path.startswith("python:"):
        raise RequestError(f"data.corpus.{name}: {path} is unknown; there are python:stdlib and python:topics")

    root = Path(path).expanduser()
    try:
        status = root.stat()
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file or folder (data.corpus.{name})") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror} (data.corpus.{name})") from None
    if stat.S_ISREG(status.st_mode):
        if not status.st_size:
            raise RequestError(f"{path}: the file is empty")
        listing.direct = True
        listing.files = [File(root, root.name, kind_of(root.name) or ".txt", status.st_size, status.st_mtime_ns)]
    elif stat.S_ISDIR(status.st_mode):
        try:
            os.listdir(root)
        except OSError as error:
            raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
        listing.files = list(_walk(root, listing, exclude, set()))
        if not listing.files:
            raise RequestError(
                f"{path}: no text in this folder; files of these kinds are read: {' '.join(TEXT + ROWS)} and .gz, .zst"
                f" of them" + _left_out(listing)
            )
    else:
        raise RequestError(f"{path}: neither a file nor a folder")
    return listing


def _walk(root: Path, listing: Listing, exclude: Collection[Path], leave_out: set[str]) -> Iterator[File]:
    """Files of the known kinds below `root`, in sorted order; the others are counted."""
    base, excluded = root.resolve(), {path.resolve() for path in exclude}
    for folder, folders, names in os.walk(root, onerror=lambda e: listing.skip("unreadable", str(e.filename))):
        here = Path(folder)
        folders[:] = sorted(d for d in folders if not d.startswith(".") and d not in leave_out)
        if excluded:  # links to folders are not followed, so below `base` a path is its own resolution
            at = base / here.relative_to(root)
            folders[:] = [d for d in folders if at / d not in excluded]
        for name in sorted(n for n in names if not n.startswith(".")):
            kind, path = kind_of(name), here / name
            relative = path.relative_to(root).as_posix()
            if not kind:
                listing.skip("other kinds", relative)
                continue
            try:
                status = path.stat()
            except OSError:
                listing.skip("unreadable", relative)
                continue
            if not stat.S_ISREG(status.st_mode):
                listing.skip("not a file", relative)
            elif not status.st_size:
                listing.skip("empty", relative)
            else:
                yield File(path, relative, kind, status.st_size, status.st_mtime_ns)


def _is_stdlib_text(f: File) -> bool:
    # _sysconfigdata holds this machine's build settings
    return f.kind == ".py" and f.name.endswith(".py") and not Path(f.name).name.startswith("_sysconfigdata")


def _left_out(listing: Listing) -> str:
    return f" ({', '.join(f'{n:,} {why}' for why, n in listing.skipped.items())} left out)" if listing.skipped else ""
