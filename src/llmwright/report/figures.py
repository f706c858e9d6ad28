"""How the page writes its figures: one format for each kind, so that two places never show the same one differently."""

from datetime import datetime

from ..progress import clock


def percent(share: float, signed: bool = False) -> str:
    """A share as 41%, 6.2%, 100%; signed as +4.8% or −7.4%. One decimal below ten, where it still tells something."""
    value = 100 * share
    digits = 1 if 0 < round(abs(value), 1) < 10 else 0
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-", "−") + "%"


def duration(seconds: float) -> str:
    """42 s, 3:05, 1:02:03."""
    return clock(seconds).replace("s", " s")


def moment(when: datetime | str) -> str:
    """22 November 2026, 09:40 UTC. A moment written down with its zone is shown in that zone; other text as it is."""
    if isinstance(when, str):
        try:
            when = datetime.strptime(when, "%Y-%m-%dT%H:%M:%S%z")
        except ValueError:
            return when
    zone = (when.tzname() or "").replace("UTC+00:00", "UTC")
    return f"{when.day} {when:%B %Y, %H:%M} {zone}".strip()
