"""Pairs of texts in files: two files whose lines belong together, or one table with a side in each of two columns.

What comes out is (where, source, target) as the files have them, in order and with bounded memory; cleaning is
`pair_clean`'s. `where` is for people: a file and a line or row.
"""

import csv
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import recipe
from ..errors import RequestError
from .clean import decode
from .pieces import open_stream, read_up_to, reading
from .row_files import LONGEST_ROW, json_array, known
from .sources import kind_of

TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
Pair = tuple[str, str | None, str | None]


@dataclass(frozen=True)
class PairListing:
    """The files of one part of a source: two files, or a table."""

    files: recipe.PairFiles
    paths: tuple[Path, ...]

    @property
    def bytes(self) -> int | None:
        """On disk, which is the text's size where no file is compressed."""
        packed = any(path.name.lower().endswith((".gz", ".zst", ".parquet")) for path in self.paths)
        return None if packed else sum(path.stat().st_size for path in self.paths)

    def stamp(self) -> list:
        """What changes when a file is written to or another one is named."""
        return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in self.paths]


def list_pairs(files: recipe.PairFiles, where: str) -> PairListing:
    """Raises RequestError, naming `where`, for a file that is missing, empty or of no kind that is read."""
    names = [files.path] if files.path else [files.source, files.target]
    paths = tuple(Path(name).expanduser() for name in names)
    for name, path in zip(names, paths):
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise RequestError(f"{name}: no such file ({where})") from None
        except OSError as error:
            raise RequestError(f"{name}: cannot be read: {error.strerror} ({where})") from None
        if not path.is_file():
            raise RequestError(f"{name}: not a file ({where})")
        if not size:
            raise RequestError(f"{name}: the file is empty ({where})")
    if files.path and kind_of(files.path) not in TABLES:
        raise RequestError(f"{files.path}: pairs in one file are read from {' '.join(TABLES)} and .gz, .zst of them; two "
                           f"text files are named as source and target ({where})")
    return PairListing(files, paths)


def read_pairs(listing: PairListing, counts: Counter) -> Iterator[Pair]:
    """All pairs, a side None where a row has no text for it. `counts` gets repairs and what was left out."""
    if listing.files.path:
        yield from _table(listing, counts)
    else:
        yield from _parallel(listing, counts)


def _parallel(listing: PairListing, counts: Counter) -> Iterator[Pair]:
    """Line N of one file with line N of the other."""
    source, target = listing.paths
    numbers = [0, 0]
    streams = [_lines(path, counts) for path in listing.paths]
    for sides in itertools.zip_longest(*streams):
        numbers = [n + (side is not None) for n, side in zip(numbers, sides)]
        if None not in sides:
            yield f"{source.name}:{numbers[0]}", *sides
    if numbers[0] != numbers[1]:
        raise RequestError(
            f"{source} has {numbers[0]:,} lines and {target} {numbers[1]:,}: line N of one must belong to line N of the other"
        )


def _lines(path: Path, counts: Counter) -> Iterator[str]:
    """Each line without its end; one beyond LONGEST_ROW bytes is cut there, to be dropped for its length later."""
    with reading(path), open_stream(path) as raw:
        stream = raw if not isinstance(raw, io.RawIOBase) else io.BufferedReader(raw)
        first = True
        while line := stream.readline(LONGEST_ROW):
            kept = line
            while line and not line.endswith(b"\n"):
                line = stream.readline(LONGEST_ROW)
            if first and kept.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise RequestError(f"{path}: UTF-16 text; pairs are read from UTF-8: save it as that")
            if first and b"\0" in kept[:8000]:
                raise RequestError(f"{path}: a binary file, not text")
            first = False
            yield decode(kept, counts).rstrip("\r\n")


def _table(listing: PairListing, counts: Counter) -> Iterator[Pair]:
    path, keys = listing.paths[0], (listing.files.source_key, listing.files.target_key)
    kind = kind_of(path.name)
    with reading(path):
        if kind in (".csv", ".tsv"):
            rows = _columns(path, kind, keys, counts)
        else:
            rows = _records(path, keys, {".jsonl": _json_lines, ".json": _json, ".parquet": _parquet}[kind], counts)
        for number, sides in rows:
            yield f"{path.name}:{number}", *(side if isinstance(side, str) else None for side in sides)


def _records(path: Path, keys: tuple[str, str], read, counts: Counter) -> Iterator[tuple[int, list]]:
    """Rows that are mappings. If no row among the first hundred has both sides, the keys are wrong."""
    found, first = False, None
    for number, row in enumerate(read(path, keys), 1):
        if not isinstance(row, dict):
            counts["rows not JSON"] += 1
            continue
        first = first or row
        found = found or all(isinstance(row.get(key), str) for key in keys)
        if not found and number == 100:
            break
        yield number, [row.get(key) for key in keys]
    if not found:
        raise RequestError(_wrong_keys(path, keys, list(first or {})))


def _wrong_keys(path: Path, keys: tuple[str, str], names: list[str]) -> str:
    return f"{path}: no row has text under both {keys[0]!r} and {keys[1]!r}; found {known(names)}: set source_key and target_key"


def _json(path: Path, keys) -> Iterator[object]:
    """A JSON array of rows, or JSON Lines under the wrong name."""
    with open_stream(path) as stream:
        head = read_up_to(stream, 4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return json_array(path) if head.startswith(b"[") else _json_lines(path, keys)


def _json_lines(path: Path, keys) -> Iterator[object]:
    for line in _lines(path, Counter()):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield None


def _parquet(path: Path, keys) -> Iterator[dict]:
    import pyarrow
    import pyarrow.parquet

    try:
        with open_stream(path) as stream:
            source = path if path.name.lower().endswith(".parquet") else pyarrow.BufferReader(stream.read())
        with pyarrow.parquet.ParquetFile(source) as table:
            names = table.schema_arrow.names
            if missing := [key for key in keys if key not in names]:
                raise RequestError(f"{path}: no column {missing[0]!r}; its columns are {known(names)}: set source_key and "
                                   "target_key")
            for rows in table.iter_batches(batch_size=1024, columns=list(dict.fromkeys(keys))):
                yield from rows.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise RequestError(f"{path}: not a parquet file: {str(error).splitlines()[0]}") from None


def _columns(path: Path, kind: str, keys: tuple[str, str], counts: Counter) -> Iterator[tuple[int, list]]:
    """CSV by RFC 4180; TSV without quoting, as its media type has it."""
    csv.field_size_limit(LONGEST_ROW)
    lines = _lines(path, counts)
    rows = (line.split("\t") for line in lines) if kind == ".tsv" else csv.reader(line + "\n" for line in lines)
    try:
        header = next(rows, [])
        if all(key in header for key in keys):
            places, first = [header.index(key) for key in keys], []
        elif all(key.isdigit() and int(key) < len(header) for key in keys):
            places, first = [int(key) for key in keys], [header]
        else:
            missing = next(key for key in keys if key not in header)
            raise RequestError(f"{path}: no column {missing!r}; its columns are {known(header)}: set source_key and "
                               "target_key")
        for number, row in enumerate(itertools.chain(first, rows), 1):
            yield number, [row[place] if place < len(row) else None for place in places]
    except csv.Error as error:
        raise RequestError(f"{path}: not valid CSV: {error}") from None
