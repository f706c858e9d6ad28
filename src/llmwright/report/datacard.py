"""The data card as a page shows it: sources, what each cleaning step removed, and the splits."""

import math
from pathlib import Path

from ..progress import amount
from .inputs import read_json
from .series import number

SPLITS = ("train", "val", "test")


def counted(value, key: str = "documents") -> float:
    """A count, given as a number or inside an object; NaN where it is neither."""
    return number(value.get(key) if isinstance(value, dict) else value if key == "documents" else None)


def _show(value: float, unit: str = "") -> str:
    return amount(value, unit) if math.isfinite(value) else ""


def _sources(card: dict) -> list[dict]:
    given = card.get("sources") or []
    if isinstance(given, dict):
        given = [{"name": name, **(s if isinstance(s, dict) else {"path": s})} for name, s in given.items()]
    rows = []
    for source in given:
        path = str(source.get("path", ""))
        rows.append({
            "name": str(source.get("name") or path), "path": path,
            "files": _show(number(source.get("files"))), "documents": _show(number(source.get("documents"))),
            "bytes": _show(number(source.get("bytes")), "B"),
        })
    return rows


def waterfall(read: tuple[float, float], dropped: list[tuple[str, float, float]]) -> list[dict]:
    """Rows from all that was read, through each step that removed documents, to what was kept.

    `read` and each dropped row are (documents, bytes). `start` and `width` are shares of the documents read: each drop
    hangs where the one before it ended.
    """
    documents, size = read
    left, left_bytes = documents, size
    rows = [{"label": "read", "role": "total", "start": 0, "width": 1, "documents": _show(documents),
             "bytes": _show(size, "B")}]
    for label, n, n_bytes in dropped:
        left, left_bytes = left - n, left_bytes - n_bytes
        rows.append({"label": label.replace("_", " "), "role": "drop", "start": max(left, 0) / documents,
                     "width": n / documents, "documents": "−" + _show(n),
                     "bytes": "−" + _show(n_bytes, "B") if math.isfinite(n_bytes) else ""})
    rows.append({"label": "kept", "role": "total", "start": 0, "width": max(left, 0) / documents,
                 "documents": _show(left), "bytes": _show(left_bytes, "B")})
    return rows


def _splits(card: dict) -> list[dict]:
    splits = []
    for name in SPLITS:
        split = (card.get("splits") or {}).get(name) or {}
        shards = split.get("shards") or []
        totals = {
            key: number(split[key]) if key in split else sum(number(s.get(key)) for s in shards)
            for key in ("tokens", "documents", "bytes")
        }
        if totals["tokens"] > 0:
            splits.append({"name": {"train": "training", "val": "validation", "test": "test"}[name], **totals})
    whole = sum(s["tokens"] for s in splits)
    return [
        {**s, "share": s["tokens"] / whole, "train_bytes": s["bytes"], "tokens": _show(s["tokens"]),
         "documents": _show(s["documents"]), "bytes": _show(s["bytes"], "B")}
        for s in splits
    ]


def example_texts(card: dict) -> list[str]:
    """The example documents, as texts."""
    return [str(e.get("text", "") if isinstance(e, dict) else e) for e in card.get("examples") or []]


def split_bytes(card: dict, name: str) -> tuple[float, float]:
    """Bytes and tokens of a split, from its own totals or its shards."""
    split = (card.get("splits") or {}).get(name) or {}
    shards = split.get("shards") or []
    return tuple(number(split[k]) if k in split else sum(number(s.get(k)) for s in shards) for k in ("bytes", "tokens"))


def data(run: Path) -> dict:
    """What the page's data section shows. Raises Missing."""
    card = read_json(run / "data" / "data.json")
    steps, repairs = [], ""
    return {"sources": _sources(card), "steps": steps, "repairs": repairs, "splits": _splits(card),
            "examples": [text[:1500] for text in example_texts(card)[:3]]}
