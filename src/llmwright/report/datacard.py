"""The data card as a page shows it: sources, what each cleaning step removed, and the splits."""

import math
from pathlib import Path

from ..progress import amount
from .inputs import read_json
from .series import number

SPLITS = {"train": "training", "val": "validation", "test": "test"}
LABELS = {
    "min_chars": "too short", "max_line_chars": "lines too long", "min_letter_share": "too few letters",
    "max_repeated_line_share": "repeated lines", "overlap": "overlap with test text", "empty": "an empty side",
    "max_chars": "too long", "max_ratio": "sides too unequal",
}
REPAIRS_SHOWN = 8


def data(run: Path) -> dict:
    """What the page's data section shows. Raises Missing."""
    card = read_json(run / "data" / "data.json")
    rule = (card.get("split") or {}).get("rule")
    return {
        "sources": _sources(card), **_steps(card.get("steps") or {}), "splits": _splits(card),
        "unit": str(card.get("documents_are") or "documents").removesuffix("s"), "rule": "Each document cut into its first, middle and last part" if rule == "tail" else _rule(card),
        "examples": [text[:1500] for text in example_texts(card)[:3]],
    }


def _rule(card: dict) -> str:
    published = (card.get("split") or {}).get("published")
    if published:
        return f"Split as published ({', '.join(SPLITS.get(part, part) for part in published)})"
    return "Split by source" if card.get("documents_are") == "pairs" else "Split by document"


def example_texts(card: dict) -> list[str]:
    """The example documents, as texts."""
    examples = card.get("examples")
    return [str(e["text"]) for e in examples if isinstance(e, dict) and "text" in e] if isinstance(examples, list) else []


def training_size(card: dict) -> tuple[float, float]:
    """Bytes and tokens of the training text; NaN where the card does not say."""
    splits = card.get("splits")
    train = splits.get("train") if isinstance(splits, dict) else None
    return tuple(number(train.get(key)) if isinstance(train, dict) else math.nan for key in ("bytes", "tokens"))


def _show(value, unit: str = "") -> str:
    return amount(value, unit) if math.isfinite(number(value)) else ""


def _counted(count, what: str) -> str:
    """3 files, 1 file; nothing for none: a source that is no directory has no files."""
    return f"{_show(count)} {what}{'s' if count != 1 else ''}" if number(count) > 0 else ""


def _sources(card: dict) -> list[dict]:
    """A row a source: what was read, what cleaning left of it over all splits, and the tokens of that."""
    rows = []
    for name, source in card["sources"].items():
        parts = [split.get("sources", {}).get(name, {}) for split in card["splits"].values()]
        # cut by `tail`, a document has a piece in every split
        together = max if (card.get("split") or {}).get("rule") == "tail" else sum
        documents = together(part.get("documents", 0) for part in parts)
        size, tokens = (sum(part.get(key, 0) for part in parts) for key in ("bytes", "tokens"))
        rows.append({
            "name": name, "path": str(source.get("path", "")),
            "read": _show(source.get("bytes"), "B"), "files": _counted(source.get("files"), "file"),
            "kept": _show(size, "B") if size else "", "documents": _counted(documents, str(card.get("documents_are") or "documents").removesuffix("s")),
            "tokens": _show(tokens), "per_token": f"{size / tokens:.2f} bytes each" if size and tokens else "",
        })
    return rows


def _steps(steps: dict) -> dict:
    """The waterfall, and in words the repairs and the steps that removed nothing."""
    drops = {**steps.get("dropped", {})}
    drops |= {name: steps[name] for name in ("exact_duplicates", "near_duplicates", "overlap") if steps.get(name)}
    read = steps.get("read") or {}
    if not read.get("documents"):
        return {"steps": [], "notes": []}
    hit = {name: count for name, count in drops.items() if count["documents"]}
    kept = dict(steps["kept"])  # before the overlap was taken out of the training text
    for key in kept:
        kept[key] -= steps.get("overlap", {}).get(key, 0)
    notes = []
    repaired = {name: n for name, n in (steps.get("repaired") or {}).items() if n}
    if repaired:
        most = sorted(repaired.items(), key=lambda item: -item[1])[:REPAIRS_SHOWN]
        notes.append("Repaired: " + ", ".join(f"{name} in {n:,}" for name, n in most) + ".")
    idle = [_label(name) for name in drops if name not in hit]
    if idle:
        notes.append("Nothing to remove: " + ", ".join(idle) + ".")
    return {"steps": waterfall(read, hit, kept), "notes": notes}


def _label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def waterfall(read: dict, drops: dict[str, dict], kept: dict) -> list[dict]:
    """Rows from all that was read, through each step that removed documents, to what was kept.

    Each is {"documents", "bytes"}. `start` and `width` are shares of the documents read: each drop hangs where the one
    before it ended. (A long document that was cut counts as several afterwards, so what is kept can exceed the rest.)
    """
    whole = left = read["documents"]
    rows = [_row("read", "total", 0, 1, read)]
    for name, count in drops.items():
        left -= count["documents"]
        rows.append(_row(_label(name), "drop", max(left, 0) / whole, count["documents"] / whole, count, "−"))
    rows.append(_row("kept", "total", 0, min(kept["documents"] / whole, 1), kept))
    return rows


def _row(label: str, role: str, start: float, width: float, count: dict, sign: str = "") -> dict:
    return {"label": label, "role": role, "start": start, "width": width,
            "documents": sign + _show(count["documents"]), "bytes": sign + _show(count["bytes"], "B")}


def _splits(card: dict) -> list[dict]:
    splits = {name: card["splits"][name] for name in SPLITS if card["splits"].get(name, {}).get("tokens")}
    whole = sum(split["tokens"] for split in splits.values())
    return [
        {"name": SPLITS[name], "share": split["tokens"] / whole, "tokens": _show(split["tokens"]),
         "documents": _show(split["documents"]), "bytes": _show(split["bytes"], "B")}
        for name, split in splits.items()
    ]
