"""From files to batches of raw documents, in a fixed order and with bounded memory.

One document is a text file, a row of a table or of JSON Lines, a pydoc topic. A text file above `WHOLE` bytes is cut
into documents of at most `PIECE`, at blank lines where there are any. What takes time (decoding, JSON, cleaning) is
left to the workers that receive the batches; here bytes only pass through.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import RequestError
from .pieces import is_binary, open_stream, pieces, read_up_to, reading
from .row_files import ROW_READERS, texts_of
from .sources import File, Listing, python_topics

BATCH = 2 << 20  # bytes of raw text a message to a worker
WHOLE = 16 << 20  # a text file up to this size is one document
PIECE = 1 << 20  # a larger one is cut into documents of this size, so that a split by document has enough of them


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
        topics = python_topics()
        yield from (("text", name, topics[name]) for name in sorted(topics))
    elif listing.path.startswith("hub:"):
        rows = _hub_rows(listing.path.removeprefix("hub:"))
        yield from texts_of(rows, listing.path, listing.text_key, counts)
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
