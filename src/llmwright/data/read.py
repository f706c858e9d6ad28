"""From files to batches of raw documents, in a fixed order and with bounded memory.

One document is a text file, a row of a table or of JSON Lines, a pydoc topic. A text file above `WHOLE` bytes is cut
into documents of at most `PIECE`, at blank lines where there are any. What takes time (decoding, JSON, cleaning) is
left to the workers that receive the batches; here bytes only pass through.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import RequestError
from .pieces import BLOCK, is_binary, lines, open_stream, pieces, read_up_to, reading
from .sources import File, Listing

BATCH = 2 << 20  # bytes of raw text a message to a worker
WHOLE = 16 << 20  # a text file up to this size is one document
PIECE = 1 << 20  # a larger one is cut into documents of this size, so that a split by document has enough of them
LONGEST_ROW = 32 << 20  # a row longer than this is left out and counted


@dataclass
class Batch:
    """Raw documents of one source. `kind`: "text" (items are whole documents, bytes or str) or "jsonl" (items are
    blocks of lines, each holding many documents, named `file:first line`)."""

    source: str
    kind: str
    text_key: str
    items: list[tuple[str, bytes | str]] = field(default_factory=list)
    size: int = 0

    def add(self, name: str, item: bytes | str) -> None:
        self.items.append((name, item))
        self.size += len(item) if isinstance(item, bytes) or item.isascii() else len(item.encode("utf-8", "replace"))


def batches(listing: Listing, counts: Counter, size: int = BATCH) -> Iterator[Batch]:
    """The documents behind `listing` in batches of about `size` bytes. `counts` gets what was left out or cut.

    Raises RequestError that names the file at fault.
    """
    batch = Batch(listing.name, "text", listing.text_key)
    for kind, name, item in _items(listing, counts):
        if batch.items and (kind != batch.kind or batch.size + len(item) > size):
            yield batch
            batch = Batch(listing.name, kind, listing.text_key)
        batch.kind = kind
        batch.add(name, item)
    if batch.items:
        yield batch


def _items(listing: Listing, counts: Counter) -> Iterator[tuple[str, str, bytes | str]]:
    """(kind of batch, name, item) of everything in the listing."""
    if listing.path == "python:topics":
        from pydoc_data.topics import topics

        yield from (("text", name, topics[name]) for name in sorted(topics))
    elif listing.path.startswith("hub:"):
        rows = _hub_rows(listing.path.removeprefix("hub:"))
        yield from _texts(rows, listing.path, listing.text_key, counts)
    for f in listing.files:
        if f.kind in ROW_READERS:
            with reading(f.path):
                yield from ROW_READERS[f.kind](f, listing, counts)
        else:
            yield from _text_file(f, listing, counts)


def _text_file(f: File, listing: Listing, counts: Counter) -> Iterator[tuple[str, str, bytes]]:
    try:
        stream = open_stream(f.path)
    except OSError as error:
        if listing.direct:
            raise RequestError(f"{f.path}: cannot be read: {error.strerror or error}") from None
        return listing.skip("unreadable", f.name)
    with stream, reading(f.path):
        head = read_up_to(stream, WHOLE + 1)
        if not head or is_binary(head):
            why = "binary" if head else "empty"
            if listing.direct:
                raise RequestError(f"{f.path}: {'a binary file, not text' if head else 'the file is empty'}")
            return listing.skip(why, f.name)
        if len(head) <= WHOLE:
            yield "text", f.name, head
            return

        def on_cut():
            counts["cut inside a line"] += 1

        for i, piece in enumerate(pieces(head, stream, PIECE, on_cut)):
            yield "text", f"{f.name}#{i}", piece


def _jsonl(f: File, listing: Listing, counts: Counter) -> Iterator[tuple[str, str, bytes]]:
    def on_long(number):
        counts["rows too long"] += 1

    with open_stream(f.path) as stream:
        for number, block in lines(stream, LONGEST_ROW, on_long):
            yield "jsonl", f"{f.name}:{number}", block


def _json(f: File, listing: Listing, counts: Counter) -> Iterator[tuple[str, str, str]]:
    """A JSON array of rows, read element by element; one object; or JSON Lines under the wrong name."""
    with open_stream(f.path) as stream:
        head = read_up_to(stream, 4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"["):
        yield from _texts(_json_array(f), f.name, listing.text_key, counts, str(f.path))
        return
    if _is_json(head.split(b"\n", 1)[0]) and b"\n" in head.rstrip():
        yield from _jsonl(f, listing, counts)
        return
    with open_stream(f.path) as stream:
        data = read_up_to(stream, LONGEST_ROW + 1)
    if len(data) > LONGEST_ROW:
        raise RequestError(f"{f.path}: one JSON object of over {LONGEST_ROW >> 20} MB; write its rows as .jsonl")
    try:
        row = json.loads(data)
    except ValueError as error:
        raise RequestError(f"{f.path}: not valid JSON: {error}") from None
    yield from _texts(iter([row]), f.name, listing.text_key, counts, str(f.path))


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _json_array(f: File) -> Iterator[object]:
    decoder, text, at, ended = json.JSONDecoder(), "", 0, False
    with open_stream(f.path) as raw:
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
            except ValueError as error:
                if ended or len(text) - at > LONGEST_ROW:
                    raise RequestError(f"{f.path}: not valid JSON: {error}") from None
            more = stream.read(max(BLOCK, len(text) - at))
            ended = not more
            text, at = text[at:] + more, 0


def _table(f: File, listing: Listing, counts: Counter) -> Iterator[tuple[str, str, str]]:
    """CSV by RFC 4180; TSV without quoting, as its media type has it, so a stray quote swallows no rows."""

    def on_long(number):
        counts["rows too long"] += 1

    def text_lines(stream):
        for _, block in lines(stream, LONGEST_ROW, on_long):
            yield from block.decode("utf-8", "replace").splitlines(keepends=True)

    options = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if f.kind == ".tsv" else {}
    csv.field_size_limit(LONGEST_ROW)
    with open_stream(f.path) as stream:
        reader = csv.reader(text_lines(stream), **options)
        try:
            header = [name.lstrip("\ufeff") for name in next(reader, [])]
            key = listing.text_key
            if key in header:
                column, first = header.index(key), []
            elif key.isdigit() and int(key) < len(header):  # a table without a header: the column's number, from 0
                column, first = int(key), [header]
            else:
                raise RequestError(f"{f.path}: no column {key!r}; its columns are {_known(header)} (source.text_key)")
            for rows in (first, reader):
                for i, row in enumerate(rows):
                    if column < len(row):
                        yield "text", f"{f.name}:{i}", row[column]
                    else:
                        counts["rows without text"] += 1
        except csv.Error as error:
            raise RequestError(f"{f.path}, line {reader.line_num}: not valid {f.kind[1:]}: {error}") from None


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
                    f"{f.path}: no column {listing.text_key!r}; its columns are {_known(names)} (source.text_key)"
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


def _texts(rows, name: str, key: str, counts: Counter, path: str | None = None) -> Iterator[tuple[str, str, str]]:
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
        keys = _known(list(first)) if isinstance(first, dict) else type(first).__name__
        raise RequestError(f"{path or name}: no row has text under {key!r}; found {keys} (source.text_key)")


def _known(names: list[str]) -> str:
    return ", ".join(map(str, names[:12])) + (", …" if len(names) > 12 else "") if names else "none"


def _hub_rows(name: str) -> Iterator[dict]:
    try:
        import datasets
    except ImportError:
        raise RequestError(f"hub:{name}: reading from the hub needs a package: pip install 'llmwright[data]'") from None
    try:
        yield from datasets.load_dataset(name, split="train", streaming=True)
    except RequestError:
        raise
    except Exception as error:  # the library raises its own kinds, its HTTP client's and its file system's
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RequestError(f"hub:{name}: cannot be read; is there a network, and the name right? {line}") from None
