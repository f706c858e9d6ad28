"""Loss curves of runs as one SVG picture, drawn from their metrics.jsonl.

    python bench/curves.py runs/objectives/masked-1 runs/objectives/masked-2 -o docs/masked.svg

The left panel has the loss of the training batches (a running mean) and of the validation text, the right one the share of
the validation targets that are guessed first, where the runs have it.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "positions"))
from plot import BOTTOM, HEIGHT, LEFT, LEGEND, TOP, WIDTH, lines  # noqa: E402  one way to draw a chart

POINTS = 200  # of a training curve


def curve(records: list[dict], key: str, mean_of: int = 1) -> tuple[list[int], list[float]]:
    """Steps and values of `key`; the mean of so many neighbours where they are many."""
    steps, values = zip(*[(r["step"], r[key]) for r in records if r.get(key) is not None]) if any(
        r.get(key) is not None for r in records) else ((), ())
    if mean_of > 1 and len(values) > mean_of:
        values = np.convolve(values, np.ones(mean_of) / mean_of, "valid")
        steps = steps[mean_of - 1 :]
    every = max(1, len(steps) // POINTS)
    return list(steps[::every]), [round(float(v), 4) for v in values[::every]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    loss, right = {}, {}
    for run in options.runs:
        records = [json.loads(line) for line in open(run / "metrics.jsonl")]
        batches = sum("loss" in r for r in records)
        loss[f"{run.name}, training"] = curve(records, "loss", max(1, batches // 50))
        loss[f"{run.name}, validation"] = curve(records, "val_loss")
        right[run.name] = curve(records, "val_accuracy")
    panels = [lines("Loss", "step", "nats a target", {name: xy for name, xy in loss.items() if xy[0]})]
    if any(xy[0] for xy in right.values()):
        panels.append(lines("Validation targets guessed first", "step", "share", {name: xy for name, xy in right.items() if xy[0]}, y_from=0.0))
    each = WIDTH + LEFT + LEGEND
    inside = "\n".join(f'<g transform="translate({i * each},0)">' + "\n".join(p) + "</g>" for i, p in enumerate(panels))
    width, height = each * len(panels), HEIGHT + TOP + BOTTOM
    options.out.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11" '
        f'fill="#333">\n<rect width="{width}" height="{height}" fill="#fff"/>\n{inside}\n</svg>\n', encoding="utf-8")


if __name__ == "__main__":
    main()
