"""Numbers as people write and read them: 7B, 1.4T, 3.1e23; 26 days, 44.4 GB."""

import math

from ..errors import RequestError
from ..progress import amount, clock

_SUFFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12, "P": 1e15}


def parse(text: str, name: str, largest: float = 1e30) -> float:
    """`text` (125M, 7B, 1.4T, 300e9, 1_000) as a number above 0 and at most `largest`. Raises RequestError that names
    `name`."""
    plain = text.strip().replace("_", "").replace(",", "").upper()
    suffix = plain[-1:] if plain[-1:] in _SUFFIXES else ""
    try:
        value = float(plain[: len(plain) - len(suffix)]) * _SUFFIXES[suffix]
    except ValueError:
        raise RequestError(f"{name} {text}: not a number; write it like 125M, 7B, 1.4T or 3.1e23") from None
    if not (math.isfinite(value) and 0 < value <= largest):
        raise RequestError(f"{name} {text}: it must be more than 0 and at most {largest:g}")
    return value


def maybe(text: str | None, name: str, largest: float = 1e30) -> float | None:
    """`parse`, or None for nothing."""
    return None if text is None else parse(text, name, largest)


def size(value: float) -> str:
    """Bytes: 44.4 GB (10⁹ bytes)."""
    return amount(value, "B")


def count(value: float) -> str:
    """124.44M, 1.40T."""
    return amount(round(value), "")


def duration(seconds: float) -> str:
    """42s, 3:05, 1:02:03, 3.5 days, 12.1 years."""
    days = seconds / 86_400
    if days < 2:
        return clock(seconds) if seconds >= 1 else f"{seconds:.2g} s"
    return f"{days:,.1f} days" if days < 730 else f"{days / 365.25:,.1f} years"


def dollars(value: float | None) -> str:
    if value is None:
        return "—"
    return f"${value:,.0f}" if value >= 100 else f"${value:,.2f}"
