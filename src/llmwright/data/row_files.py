"""Files of rows, one document a row: JSON Lines, JSON, CSV, TSV and parquet.

Each reader yields (kind of batch, name, item) with bounded memory; rows without text, or longer than `LONGEST_ROW`,
are counted. A wrong `text_key` is an error that names the keys there are.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..errors import RequestError
from .clean import decode
from .pieces import BLOCK, lines, open_stream, read_up_to
from .sources import File, Listing

LONGEST_ROW = 32 << 20  # bytes; a row longer than this is left out and counted
HOW = ": set data.text_key=NAME (llmwright prepare: --set text_key=NAME)"


def _jsonl(f: File, listing: Listing, counts: Counter) -> Iterator[tuple[str, str, bytes]]:
    def on_long(number):
        counts["rows too long"] += 1

    with open_stream(f.path) as stream:
        for number, block in lines(stream, LONGEST_ROW, on_long):
            if number == 1:
                _check_key(f, block.split(b"\n", 100)[:100], listing.text_key)
            yield "jsonl", f"{f.name}:{number}", block


def _check_key(f: File, first: list[bytes], key: str) -> None:
    """A wrong `text_key` shows in the first rows, before hours of reading."""
    rows = [row for line in first if (row := _json_object(line)) is not None]
    if rows and not any(isinstance(row.get(key), str) for row in rows):
        raise RequestError(f"{f.path}: no row has text under {key!r}; found {known(list(rows[0]))}{HOW}")


def _json(f: File, listing: Listing, counts: Counter) -> Iterator[tuple[str, str, str]]:
    """A JSON array of rows, read element by element; one object; or JSON Lines under the wrong name."""
    with open_stream(f.path) as stream:
        head = read_up_to(stream, 4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"["):
        yield from texts_of(json_array(f.path), f.name, listing.text_key, counts, str(f.path))
        return
    if b"\n" in head.rstrip() and _json_object(head.split(b"\n", 1)[0]) is not None:
        yield from _jsonl(f, listing, counts)
        return
    with open_stream(f.path) as stream:
        data = read_up_to(stream, LONGEST_ROW + 1)
    if len(data) > LONGEST_ROW:
        raise RequestError(f"{f.path}: one JSON object of over {LONGEST_ROW >> 20} MB; write its rows as .jsonl")
    try:
        row = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{f.path}: not valid JSON: {error}") from None
    yield from texts_of(iter([row]), f.name, listing.text_key, counts, str(f.path))


def _json_object(line: bytes) -> dict | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def json_array(path: Path, *_) -> Iterator[object]:
    """The rows of a JSON array, read element by element. Raises RequestError where it is none."""
    decoder, text, at, ended = json.JSONDecoder(), "", 0, False
    with open_stream(path) as raw:
        stream = io.TextIOWrapper(raw if not isinstance(raw, io.RawIOBase) else io.BufferedReader(raw), "utf-8-sig",
                                  errors="replace")
        text = stream.read(BLOCK).lstrip()[1:]
        while True:
            at = len(text) - len(text[at:].lstrip(" \t\r\n,"))
            if text[at : at + 1] == "]":
                return
            try:
                row, end = decoder.raw_decode(text, at)
                if end < len(text) or ended:
                    yield row
                    at = end
                    continue
            except RecursionError as error:
                raise RequestError(f"{path}: not valid JSON: {error}") from None
            except ValueError as error:
                if ended or len(text) - at > LONGEST_ROW:
                    raise RequestError(f"{path}: not valid JSON: {error}") from None
            more = stream.read(max(BLOCK, len(text) - at))
            ended = not more
            text, at = text[at:] + more, 0


def _table(f: File, listing: Listing, counts: Counter) -> Iterator[tuple[str, str, str]]:
    """CSV by RFC 4180; TSV without quoting, as its media type has it, so a stray quote swallows no rows."""

    def on_long(number):
        counts["rows too long"] += 1

    def text_lines(stream):
        for _, block in lines(stream, LONGEST_ROW, on_long):
            yield from io.StringIO(decode(block, counts), newline="\n")

    csv.field_size_limit(LONGEST_ROW)
    with open_stream(f.path) as stream:
        if f.kind == ".tsv":
            reader = (line.rstrip("\r\n").split("\t") for line in text_lines(stream))
        else:
            reader = csv.reader(text_lines(stream))
        try:
            header = next(reader, [])
            key = listing.text_key
            if key in header:
                column, first = header.index(key), []
            elif key.isdigit() and int(key) < len(header):  # a table without a header: the column's number, from 0
                column, first = int(key), [header]
            else:
                raise RequestError(f"{f.path}: no column {key!r}; its columns are {known(header)}{HOW}")
            for rows in (first, reader):
                for i, row in enumerate(rows):
                    if column < len(row):
                        yield "text", f"{f.name}:{i}", row[column]
                    else:
                        counts["rows without text"] += 1
        except csv.Error as error:
            raise RequestError(f"{f.path}, line {reader.line_num}: not valid CSV: {error}") from None


def _parquet(f: File, listing: Listing, counts: Counter) -> Iterator[tuple[str, str, str]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with open_stream(f.path) as stream:
            # a compressed parquet file cannot be read from the middle, so it is unpacked whole
            source = f.path if f.path.name.lower().endswith(".parquet") else pyarrow.BufferReader(stream.read())
        with pyarrow.parquet.ParquetFile(source) as table:
            names = table.schema_arrow.names
            if listing.text_key not in names:
                raise RequestError(
                    f"{f.path}: no column {listing.text_key!r}; its columns are {known(names)}{HOW}"
                )
            number = 0
            for rows in table.iter_batches(batch_size=1024, columns=[listing.text_key]):
                for text in rows.column(0).to_pylist():
                    if isinstance(text, str):
                        yield "text", f"{f.name}:{number}", text
                    else:
                        counts["rows without text"] += 1
                    number += 1
    except pyarrow.ArrowInvalid as error:
        raise RequestError(f"{f.path}: not a parquet file: {str(error).splitlines()[0]}") from None


ROW_READERS = {".jsonl": _jsonl, ".json": _json, ".csv": _table, ".tsv": _table, ".parquet": _parquet}


def texts_of(rows, name: str, key: str, counts: Counter, path: str | None = None) -> Iterator[tuple[str, str, str]]:
    """The texts of `rows`, which are mappings (or plain strings). Rows without one are counted; if there is no row
    with one, that is an error."""
    found, first = False, None
    for i, row in enumerate(rows):
        text = row if isinstance(row, str) else row.get(key) if isinstance(row, dict) else None
        if isinstance(text, str):
            found = True
            yield "text", f"{name}:{i}", text
        else:
            counts["rows without text"] += 1
            first = first or row
    if not found and first is not None:
        keys = known(list(first)) if isinstance(first, dict) else type(first).__name__
        raise RequestError(f"{path or name}: no row has text under {key!r}; found {keys}{HOW}")


def known(names: list[str]) -> str:
    return ", ".join(map(str, names[:12])) + (", …" if len(names) > 12 else "") if names else "none"
