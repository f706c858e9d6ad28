"""Where pulled models live: one folder each, whole or not there.

    $LLMWRIGHT_CACHE or ~/.cache/llmwright
      models/NAME/           a model; its pulled.json says where it came from
      models/.coming/NAME/   what a pull that goes on, or was stopped, has brought so far

A hub id `owner/name` lies in `owner--name`. `resolve` is what every command calls with what the user named.
"""

import contextlib
import json
import os
import re
import time
from pathlib import Path

from ..errors import RequestError, WorkError
from . import catalogue

RECORD = "pulled.json"
# owner/name, and after a colon which of several GGUF files
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[A-Za-z0-9][\w.-]*)?")


def models() -> Path:
    base = os.environ.get("LLMWRIGHT_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "llmwright")
    return Path(base).expanduser() / "models"


def folder(name: str) -> Path:
    """Where the model of this catalogue name or hub id lies once it is pulled."""
    return models() / (catalogue.key(name) or name).replace("/", "--").replace(":", "--")


def coming(name: str) -> Path:
    """Where a pull of it collects files."""
    return models() / ".coming" / folder(name).name


def record(place: Path) -> dict | None:
    """What pulled.json in `place` says: {"name", "source", "licence", "files": {name: bytes}, …}. None if no pull
    was finished there."""
    try:
        found = json.loads((place / RECORD).read_text(encoding="utf-8"))
        return found if isinstance(found["files"], dict) and isinstance(found["source"], str) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def fault(place: Path) -> str | None:
    """What is not as it was pulled: a file that is gone or has another size. None if all is well."""
    for name, size in record(place)["files"].items():
        try:
            found = (place / name).stat().st_size
        except OSError:
            return f"{place / name} is gone"
        if found != size:
            return f"{place / name} has {found:,} bytes instead of {size:,}"
    return None


def find(name: str) -> Path | None:
    """The pulled model of this name: its directory, or its .gguf file where that is all of it. None if not here."""
    if not (catalogue.key(name) or HUB_ID.fullmatch(name)):
        return None
    place = folder(name)
    if record(place) is None:
        return None
    gguf = sorted(place.glob("*.gguf"))
    return gguf[0] if len(gguf) == 1 and not (place / "config.json").exists() else place


def resolve(name: str | Path) -> Path:
    """The path of what a user named: a path that exists, else a pulled model.

    Raises RequestError that says how to bring it when it is neither, or no longer as it was pulled.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    name = str(name)
    if (found := find(name)) is not None:
        if wrong := fault(folder(name)):
            raise RequestError(f"{wrong}; llmwright pull {name} brings it again")
        return found
    if known := catalogue.key(name):
        raise RequestError(f"{name} is not here yet: llmwright pull {known}")
    near = catalogue.nearest(name)
    if near and os.sep not in name:
        raise RequestError(f"{path}: no such file or directory; did you mean {near}? (llmwright pull --list)")
    hint = f" (if it is a model on the hub: llmwright pull {name})" if HUB_ID.fullmatch(name) else ""
    raise RequestError(f"{path}: no such file or directory{hint}")


@contextlib.contextmanager
def lock(name: str, waiting=lambda: None):
    """One process pulls a model at a time; another waits. `waiting()` is called once if it comes to that."""
    import fcntl

    file = coming(name).with_suffix(coming(name).suffix + ".lock")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        opened = open(file, "w")
    except OSError as error:
        raise WorkError(
            f"{file.parent}: cannot be written: {error.strerror}; LLMWRIGHT_CACHE says where models are kept") from None
    with opened as held:
        told = False
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    waiting()
                told = True
                time.sleep(0.2)
            except OSError:
                break  # a file system that knows no locks: two pulls at once may do the work twice, no more
        yield
