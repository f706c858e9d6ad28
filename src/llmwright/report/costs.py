"""The plan beside what really happened, and where parameters, memory and minutes went."""

import math
from pathlib import Path

from ..progress import amount
from .figures import duration, percent
from .inputs import Missing, or_empty, read_json
from .series import number


def shares(parts: dict, unit: str = "") -> dict:
    """`{part: amount}` as the pieces of one bar, largest first; `total` is given or summed. Raises Missing."""
    sizes = {name: number(value) for name, value in parts.items() if name != "total"}
    sizes = {name: size for name, size in sizes.items() if math.isfinite(size) and size > 0}
    whole = sum(sizes.values())
    if not whole:
        raise Missing("The parts are not known.")
    show = duration if unit == "s" else lambda value: amount(value, unit)
    pieces = [
        {"name": name.replace("_", " "), "share": size / whole, "text": show(size)}
        for name, size in sorted(sizes.items(), key=lambda item: -item[1])
    ]
    return {"pieces": pieces, "total": show(number(parts.get("total", whole)))}


def difference(planned: float, measured: float) -> str:
    """How far the measurement lies from the plan, in percent of the plan; half a percent is as planned."""
    share = (measured - planned) / planned
    return percent(share, signed=True) if abs(share) > 0.005 else "as planned"


def _row(label, planned, measured, show) -> dict | None:
    planned, measured = number(planned), number(measured)
    if not math.isfinite(measured) and not math.isfinite(planned):
        return None
    both = math.isfinite(planned) and math.isfinite(measured) and planned > 0
    top = max(v for v in (planned, measured) if math.isfinite(v)) or 1
    return {
        "label": label,
        "planned": show(planned) if math.isfinite(planned) else "—",
        "measured": show(measured) if math.isfinite(measured) else "—",
        "difference": difference(planned, measured) if both else "",
        "planned_share": planned / top if math.isfinite(planned) else 0,
        "measured_share": measured / top if math.isfinite(measured) else 0,
    }


def costs(run: Path) -> dict:
    """Rows of plan against measurement, and the shares of parameters, memory and time. Raises Missing."""
    plan, result = or_empty(read_json, run / "plan.json"), or_empty(read_json, run / "result.json")
    if not plan and not result:
        raise Missing("This run has neither plan.json nor result.json.")
    seconds, tokens = number(plan.get("seconds")), number(plan.get("tokens"))
    rate = plan.get("tokens_per_second") or (tokens / seconds if seconds > 0 else None)
    memory = plan.get("memory") if isinstance(plan.get("memory"), dict) else {}
    rows = [
        _row("Training time", seconds, result.get("seconds"), duration),
        _row("Peak memory", memory.get("total"), result.get("peak_memory"), lambda v: amount(v, "B")),
        _row("Tokens/s", rate, result.get("tokens_per_second"), lambda v: f"{v:,.0f}"),
        _row("Tokens seen", tokens, result.get("tokens"), lambda v: amount(v, "")),
    ]
    bars = []
    for label, note, parts, unit in (
        ("Parameters", "", plan.get("parameters"), ""),
        ("Planned memory", "", memory, "B"),
        ("Time by stage", "without writing this report", result.get("stages"), "s"),
    ):
        if isinstance(parts, dict) and any(number(v) > 0 for v in parts.values()):
            bars.append({"label": label, "note": note, **shares(parts, unit)})
    return {"rows": [row for row in rows if row], "bars": bars, "device": plan.get("device"),
            "flops": number(plan.get("flops")), "has_plan": bool(plan), "has_result": bool(result)}
