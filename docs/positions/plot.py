"""The pictures of these pages, drawn from llmwright's own code and from what bench/context.py measured.

    python docs/positions/plot.py

SVG by hand: a chart is a few lines, and the files stay small.
"""

import base64
import json
import math
import struct
import zlib
from pathlib import Path

import torch

from llmwright.model import config as spec
from llmwright.model.positions import ALiBiPositions, RelativePositions, RotaryPositions, SinusoidalPositions
from llmwright.model.rope_scaling import frequencies

HERE = Path(__file__).parent
COLOURS = (
    "#3b6fb6", "#d1662f", "#3a9461", "#9a5bb0", "#c0392b", "#7a6a53", "#d18bb8", "#6b7280", "#b0a030", "#27a5b5",
    "#111111", "#8a2f5c",
)
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, LEGEND = 300, 200, 62, 30, 42, 140


def figure(name: str, *panels: list[str]) -> None:
    each = WIDTH + LEFT + LEGEND
    width, height = each * len(panels), HEIGHT + TOP + BOTTOM
    inside = "\n".join(f'<g transform="translate({i * each},0)">' + "\n".join(p) + "</g>" for i, p in enumerate(panels))
    (HERE / name).write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11" fill="#333">\n<rect width="{width}" height="{height}" fill="#fff"/>\n{inside}\n</svg>\n',
        encoding="utf-8")


def lines(title: str, x_label: str, y_label: str, series: dict, *, log_x=False, log_y=False, steps=False,
          y_from=None, y_to=None) -> list[str]:
    """`series`: name → (xs, ys); a y of None is left out."""
    kept = {name: [(float(x), float(y)) for x, y in zip(*xy) if y is not None] for name, xy in series.items()}
    points = [p for part in kept.values() for p in part]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_at = _scale(min(xs), max(xs), LEFT, LEFT + WIDTH, log_x)
    low, high = min(ys) if y_from is None else y_from, max(ys) if y_to is None else y_to
    y_at = _scale(low, high, TOP + HEIGHT, TOP, log_y)
    drawn = _frame(title, x_label, y_label)
    for value in _ticks(min(xs), max(xs), log_x):
        drawn.append(f'<text x="{x_at(value):.1f}" y="{TOP + HEIGHT + 14}" text-anchor="middle">{value:,g}</text>')
    for value in _ticks(low, high, log_y):
        y = y_at(value)
        drawn.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e5e5"/>')
        drawn.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:,g}</text>')
    for i, (name, part) in enumerate(kept.items()):
        colour = COLOURS[i % len(COLOURS)]
        path, before = [], None
        for x, y in part:
            y = min(max(y, low), high)  # what leaves the chart runs along its edge
            if steps and before is not None:
                path.append(f"{x_at(x):.1f},{y_at(before):.1f}")
            path.append(f"{x_at(x):.1f},{y_at(y):.1f}")
            before = y
        drawn.append(f'<polyline points="{" ".join(path)}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        if len(part) < 8:
            places = [(x_at(x), y_at(min(y, high))) for x, y in part]
            drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places]
        y = TOP + 8 + 15 * i
        drawn.append(f'<line x1="{LEFT + WIDTH + 8}" x2="{LEFT + WIDTH + 22}" y1="{y}" y2="{y}" stroke="{colour}" '
                     'stroke-width="2"/>')
        drawn.append(f'<text x="{LEFT + WIDTH + 26}" y="{y + 4}">{name}</text>')
    return drawn


def heat(title: str, x_label: str, y_label: str, values: torch.Tensor) -> list[str]:
    """`values` (rows, columns) from -1 (blue) over 0 (white) to 1 (orange); the first row at the top."""
    v = values[..., None].clamp(-1, 1)
    blue, orange = torch.tensor([59.0, 111.0, 182.0]), torch.tensor([209.0, 102.0, 47.0])
    colour = torch.where(v < 0, 255 + v * (255 - blue), 255 - v * (255 - orange)).round().byte()
    rows, columns = values.shape
    raw = b"".join(b"\0" + bytes(row.flatten().tolist()) for row in colour)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    png = b"\x89PNG\r\n\x1a\n" + b"".join(packed)
    return [
        *_frame(title, x_label, y_label),
        f'<image x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{base64.b64encode(png).decode()}"/>',
        *(f'<text x="{LEFT + WIDTH * f:.0f}" y="{TOP + HEIGHT + 14}" text-anchor="middle">{columns * f:g}</text>'
          for f in (0, 0.5, 1)),
        *(f'<text x="{LEFT - 5}" y="{TOP + HEIGHT * f + 4:.0f}" text-anchor="end">{rows * f:g}</text>'
          for f in (0, 0.5, 1)),
    ]


def _frame(title: str, x_label: str, y_label: str) -> list[str]:
    middle = TOP + HEIGHT / 2
    return [
        f'<text x="{LEFT}" y="18" font-weight="bold">{title}</text>',
        f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 32}" text-anchor="middle">{x_label}</text>',
        f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{y_label}</text>',
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>',
    ]


def _scale(low, high, start, end, log):
    f = math.log if log else float
    return lambda v: start + (end - start) * (f(v) - f(low)) / ((f(high) - f(low)) or 1)


def _ticks(low, high, log):
    if log:
        base = 10 if high / low > 100 else 2
        powers = range(math.ceil(math.log(low, base) - 1e-9), math.floor(math.log(high, base) + 1e-9) + 1)
        return [base**p for p in powers]
    step = 10 ** math.floor(math.log10((high - low) / 2 or 1))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 6)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def learned(measured: dict) -> None:
    curves = {f"position {p}": (range(len(ys)), ys) for p, ys in measured["learned positions, cosine with"].items()}
    figure("learned.svg", lines("Learned vectors after training: who is like whom", "position", "cosine", curves))


def sinusoidal() -> None:
    table = SinusoidalPositions(128).embed(torch.zeros(1, 257, 128), torch.arange(257)[None])[0]  # (positions, D)
    products = {f"from position {p}": (range(-p, 257 - p), (table @ table[p] / 64).tolist()) for p in (0, 64, 128)}
    figure(
        "sinusoidal.svg", heat("The table: sines, then cosines", "channel", "position", table[:128]),
        lines("Product of two positions' vectors, over D/2", "distance", "product", products))


def rotary() -> None:
    curves, dim = {}, 64
    for theta in (100.0, 10_000.0, 500_000.0):
        scheme = RotaryPositions(spec.Rotary(theta=theta), dim)
        ones = torch.ones(1, 513, 1, dim)
        _, k = scheme.geometry(torch.arange(513)[None]).turn(ones, ones)
        curves[f"base {theta:,.0f}"] = (range(513), (k[0, :, 0] @ k[0, 0, 0] / dim).tolist())
    scheme = RotaryPositions(spec.Rotary(), dim)
    turned = scheme.geometry(torch.arange(128)[None]).cos[0]  # (positions, pairs)
    figure(
        "rotary.svg", lines("Score of a vector of ones with itself", "distance", "score over head width", curves),
        heat("cos of each pair's angle, base 10,000", "channel pair", "position", turned))


def alibi() -> None:
    bias = ALiBiPositions(spec.ALiBi(), 8).bias(torch.tensor([[127]]), 128, True)[0, :, 0]  # (heads, keys)
    names = [f"head {h}: 1/{2 ** h}" for h in range(1, 9)]
    figure(
        "alibi.svg",
        lines("What a score loses", "distance", "added to the score",
              {n: (range(127, -1, -1), b.tolist()) for n, b in zip(names, bias)}, y_from=-20),
        lines("Attention where all contents are alike", "distance", "weight",
              {n: (range(127, -1, -1), b.softmax(-1).tolist()) for n, b in zip(names, bias)}, log_y=True, y_from=1e-4))


def relative(measured: dict) -> None:
    scheme = RelativePositions(spec.Relative(32, 128), 4)
    far = torch.arange(-160, 161)
    before = torch.arange(0, 161)
    buckets = scheme.buckets(-before, True)
    numbers = measured["relative, learned numbers"]
    figure(
        "relative.svg",
        lines("32 buckets, up to distance 128", "place of the key minus place of the query", "bucket",
              {"both ways": (far.tolist(), scheme.buckets(far, False).tolist()),
               "causal": ((-before).tolist()[::-1], buckets.tolist()[::-1])}, steps=True),
        lines("What a small model learned to add", "distance", "added to the score",
              {f"head {h + 1}": (before.tolist(), [row[b] for b in buckets]) for h, row in enumerate(numbers)},
              steps=True))


def context(measured: dict) -> None:
    theta, dim, original, factor = 500_000.0, 128, 8192, 8.0
    kinds = {"linear": "linear", "NTK-aware": "ntk", "YaRN": "yarn", "Llama 3": "llama3"}
    plain = frequencies(spec.Rotary(theta=theta), dim)[0]
    pairs = range(dim // 2)
    ratios = {
        name: (pairs, (frequencies(spec.Rotary(theta=theta, scaling=spec.RopeScaling(kind, factor, original)), dim)[0]
                       / plain).tolist()) for name, kind in kinds.items()}
    waves = {"a pair's wavelength": (pairs, (2 * math.pi / plain).tolist()),
             "trained on": (pairs, [original] * len(pairs)), "stretched to": (pairs, [original * factor] * len(pairs))}
    figure(
        "frequencies.svg",
        lines("Base 500,000, head width 128", "channel pair", "positions for a whole turn", waves, log_y=True),
        lines("Stretched 8 times from 8,192 positions", "channel pair", "frequency over the plain one", ratios,
              y_from=0))
    found, lengths = measured["measured"], measured["lengths"]
    worst = 1.6 * max(row[0] for name, row in found.items() if "tuned" not in name)
    schemes = ("rotary", "ALiBi", "relative", "sinusoidal", "learned")
    stretched = [name for name in found if name.startswith("rotary")]
    figure(
        "context.svg",
        lines("Trained on 128 tokens, each scheme as it is", "length of the text", "perplexity",
              {name: (lengths, found[name]) for name in schemes}, log_x=True, y_to=worst),
        lines("One rotary model, stretched", "length of the text", "perplexity",
              {name.removeprefix("rotary, ").replace("rotary", "as it is"): (lengths, found[name])
               for name in stretched}, log_x=True, y_to=worst))


def main() -> None:
    measured = json.loads((HERE / "context.json").read_text())
    learned(measured)
    sinusoidal()
    rotary()
    alibi()
    relative(measured)
    context(measured)


if __name__ == "__main__":
    main()
