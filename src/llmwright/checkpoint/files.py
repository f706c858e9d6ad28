"""Writing so that a kill at any instant leaves either the old or the new, never a half.

A file or folder is written under another name beside its place, synced to the disk, and renamed.
"""

import contextlib
import ctypes
import errno
import json
import math
import os
import shutil
import tempfile
from pathlib import Path

from ..errors import WorkError

FULL = "the disk is full; nothing there was changed. Free some space and go on"


def sync(path: Path) -> None:
    """Force a file's or folder's content onto the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def disk_errors(path: Path):
    """A full disk or a refused write as one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkError(f"{path}: {FULL}") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise WorkError(f"{path}: no permission to write there") from error
        raise
    except Exception as error:  # safetensors wraps the system's error in its own
        if "No space left" in str(error) or "os error 28" in str(error):
            raise WorkError(f"{path}: {FULL}") from error
        raise


def write_file(path: Path, content: str | bytes) -> None:
    """Write `content` at `path`, atomically."""
    with new_file(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def new_file(path: Path):
    """A file to write; at the end it is synced and takes `path`'s place. On an error nothing of it stays."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.new-")
        os.close(fd)
        try:
            yield Path(name)
            os.chmod(name, 0o644)
            sync(Path(name))
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync(path.parent)


def write_json(path: Path, value) -> None:
    write_file(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite(value):
    """`value` for JSON, which knows no infinity and no NaN: null in their place."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def new_directory(path: Path):
    """A folder to fill; at the end it is synced and takes `path`'s place, an older one there is removed. On an error
    nothing of it stays."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.new-"))
        try:
            yield aside
            for file in sorted(aside.rglob("*")):
                if file.is_file():
                    os.chmod(file, 0o644)  # safetensors writes for its owner alone; a served model has other readers
                sync(file)
            sync(aside)
            os.chmod(aside, 0o755)
            replace_directory(aside, path)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def replace_directory(new: Path, path: Path) -> None:
    """Put `new` in `path`'s place; what stood there goes away after that."""
    if not (path.is_symlink() or path.exists()):
        os.rename(new, path)
    elif _exchange(new, path):
        _remove(new)
    else:  # no such call here: for an instant nothing is at `path`, and the old one lies beside it
        old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old-")) / path.name
        os.rename(path, old)
        os.rename(new, path)
        _remove(old)
        old.parent.rmdir()
    sync(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step of the file system; False where the system cannot (renameat2(2), renamex_np(2))."""
    libc = ctypes.CDLL(None)
    a, b = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    if hasattr(libc, "renameat2"):
        at_cwd, exchange = -100, 2
        return libc.renameat2(at_cwd, a, at_cwd, b, exchange) == 0
    if hasattr(libc, "renamex_np"):
        swap = 2
        return libc.renamex_np(a, b, swap) == 0
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def point(link: Path, target: str) -> None:
    """Make `link` a relative symbolic link to `target`, atomically."""
    aside = link.with_name(f".{link.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    os.symlink(target, aside)
    os.replace(aside, link)
