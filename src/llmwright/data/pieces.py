"""Files as streams of bounded pieces, so that memory stays flat whatever a file holds.

A stream is decompressed on the way. `pieces` cuts a long text where a reader would (blank line, line end, space);
`lines` yields whole lines and leaves out those longer than a limit, since a row cannot be cut.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import RequestError

BLOCK = 1 << 20


def open_stream(path: Path) -> BinaryIO:
    """`path` for reading bytes, decompressed by its suffix. Raises OSError."""
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rb")
    if path.name.lower().endswith(".zst"):
        import zstandard

        return zstandard.open(path, "rb")
    return open(path, "rb", buffering=0)


@contextmanager
def reading(path: Path):
    """A fault while reading `path` becomes a RequestError that names it."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RequestError(f"{path}: damaged compressed file: {error}") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:
        if type(error).__name__ != "ZstdError":  # not imported unless a .zst is read
            raise
        raise RequestError(f"{path}: damaged compressed file: {error}") from None


def read_up_to(stream: BinaryIO, size: int) -> bytes:
    """`size` bytes, fewer only at the end of the stream."""
    parts, left = [], size
    while left and (part := stream.read(min(left, BLOCK))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def is_binary(head: bytes) -> bool:
    """A NUL among the first 8,000 bytes, which is git's test; UTF-16 text with its byte-order mark is no binary."""
    return b"\0" in head[:8000] and not head.startswith((b"\xff\xfe", b"\xfe\xff"))


def pieces(head: bytes, stream: BinaryIO, size: int, on_cut: Callable[[], None]) -> Iterator[bytes]:
    """`head` and the rest of `stream` in pieces of at most `size` bytes, none lost.

    A piece ends at the last blank line in its second half, else at the last line end, else (`on_cut` is called) at
    the last space or between two characters.
    """
    rest, ended = head, False
    while True:
        at = 0
        while len(rest) - at > size:
            cut = _cut(rest, at, size)
            if rest[cut - 1] not in b"\r\n":
                on_cut()
            yield rest[at:cut]
            at = cut
        rest = rest[at:]
        if ended:
            break
        more = stream.read(BLOCK)
        rest, ended = rest + more, not more
    if rest:
        yield rest


def _cut(data: bytes, at: int, size: int) -> int:
    """Where to end the piece that begins at `at`."""
    for mark in (b"\n\n", b"\n", b" "):
        found = data.rfind(mark, at + size // 2, at + size)
        if found >= 0:
            return found + len(mark)
    cut = at + size
    while cut > at + size - 4 and data[cut] & 0xC0 == 0x80:  # inside a UTF-8 character
        cut -= 1
    return cut


def lines(stream: BinaryIO, limit: int, on_long: Callable[[int], None]) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines: (number of the first line, from 1; bytes). A line longer than `limit` bytes (up to a
    block more) is left out and `on_long(its number)` is called."""
    number, rest, skipping = 1, [], False
    while more := stream.read(BLOCK):
        last = more.rfind(b"\n") + 1
        if not last:  # inside a line that began earlier
            if not skipping:
                rest.append(more)
                if sum(map(len, rest)) > limit:
                    skipping, rest = True, []
            continue
        if skipping:  # the long line ends in this block
            first = more.find(b"\n") + 1
            on_long(number)
            number, skipping = number + 1, False
            more, last = more[first:], last - first
        block, rest = b"".join([*rest, more[:last]]), [more[last:]]
        if block:
            yield number, block
            number += block.count(b"\n")
    if skipping:
        on_long(number)
    elif any(rest):
        yield number, b"".join(rest)
