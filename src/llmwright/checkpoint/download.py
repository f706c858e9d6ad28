"""Bringing one file over HTTP: in a stream, checked as it comes, going on where an earlier try stopped.

What has come lies in NAME.part. A cut connection is taken up again with a Range request; so is what a killed process
left. The checksum runs along, and begins with what lies there already, so a damaged part is found: then the file comes
once more from its first byte. Only a file with the right checksum ever gets its name.
"""

import errno
import os
import time
from pathlib import Path

from ..errors import WorkError
from ..progress import Progress, Task, amount, clock
from .web import CHUNK, Item, Lost, Unreachable, Web

WAITS = (1, 2, 4, 8)  # seconds before each new try, counted from the last byte that came


def download(item: Item, path: Path, web: Web, task: Task, progress: Progress) -> None:
    """Bring `item` to `path`; nothing is done where it lies there whole. `task` counts its bytes.

    Raises Unreachable when the source does not give it, WorkError when the disk is full or the checksum is wrong.
    """
    if path.exists():
        if path.stat().st_size == item.bytes and _digest(path, item).hexdigest() == item.digest:
            return _here_already(task, item.bytes)
        path.unlink()
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        earlier = part.exists()
        if _bring(item, part, web, task, progress):
            os.replace(part, path)
            return
        part.unlink()
        _here_already(task, -item.bytes)
        if not earlier:
            break
        progress.say(f"{item.name}: what lay here of it was damaged; bringing it again from the start")
    raise Unreachable(f"sent a wrong {item.name}: its checksum is not {item.digest[:16]}…")


def _here_already(task: Task, n: int) -> None:
    """Count `n` bytes that nothing was sent for, so that they are not in the rate."""
    task.done += n
    task.resumed += n


def _bring(item: Item, part: Path, web: Web, task: Task, progress: Progress) -> bool:
    """Fill `part`; True if its checksum is right then."""
    if part.exists() and part.stat().st_size > item.bytes:
        part.unlink()
    hasher = _digest(part, item) if part.exists() else item.hasher()
    done = part.stat().st_size if part.exists() else 0
    _here_already(task, done)
    failures = 0
    with _opened(part) as file:
        while done < item.bytes:
            try:
                at, chunks = web.stream(item, done)
                if at != done:  # this server knows no ranges
                    file.truncate(0)
                    _here_already(task, -done)
                    hasher, done = item.hasher(), 0
                for chunk in chunks:
                    if done + len(chunk) > item.bytes:
                        raise Unreachable(f"sends more than the {item.bytes:,} bytes of {item.name}")
                    _write(file, chunk, part, done, item)
                    hasher.update(chunk)
                    done += len(chunk)
                    task.advance(len(chunk))
                    failures = 0
                if done < item.bytes:
                    raise Lost("the connection ended early")
            except Lost as error:
                if failures == len(WAITS):
                    at = f" at {amount(done, 'B')} of {amount(item.bytes, 'B')}" if done else ""
                    raise Unreachable(f"{error}{at}, after {failures + 1} tries") from None
                wait = WAITS[failures]
                failures += 1
                progress.say(f"{item.name}: {error}; going on in {clock(wait)}")
                time.sleep(wait)
        os.fsync(file.fileno())
    return hasher.hexdigest() == item.digest


def _opened(part: Path):
    try:
        return open(part, "ab", buffering=0)
    except OSError as error:
        raise WorkError(f"{part}: cannot be written: {error.strerror}") from None


def _write(file, chunk: bytes, part: Path, done: int, item: Item) -> None:
    try:
        view = memoryview(chunk)
        while view:
            view = view[file.write(view):]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkError(
                f"{part.parent}: the disk is full at {amount(done, 'B')} of {amount(item.bytes, 'B')}; free some space "
                "(or set LLMWRIGHT_CACHE to another disk), and the same command goes on"
            ) from None
        raise WorkError(f"{part}: cannot be written: {error.strerror}") from None


def _digest(path: Path, item: Item):
    hasher = item.hasher()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
    return hasher
