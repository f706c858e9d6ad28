"""The training curves as plotly figures: plain data for the page's script to draw.

A figure is `{"id", "title", "data", "layout", "height"}`. Colours are CSS variables (`var(--train)`), resolved in the
browser, so that one figure serves the light and the dark theme.
"""

import math

import numpy as np

from .inputs import Missing
from .series import column, smooth, thin

LN2 = math.log(2)


def _line(x, y, name, colour, *, width=2.0, digits=5, **more) -> dict:
    """A thinned line. Values are rounded to what can be seen: the page stays small."""
    keep = thin(y)
    alone = {"mode": "markers", "cliponaxis": False, "marker": {"color": colour, "size": 7}} if len(keep) == 1 else {}
    return {
        "type": "scatter", "mode": "lines", "name": name,
        "x": x[keep].astype(int).tolist(), "y": [float(f"{v:.{digits}g}") for v in y[keep]],
        "line": {"color": colour, "width": width}, **more, **alone,
    }


def _steps_axis(last: float, most: int = 5) -> dict:
    """A linear axis over all steps with 2 to `most` intervals between its ticks, in round numbers from zero."""
    rough = max(last, 1) / most
    decade = 10 ** math.floor(math.log10(rough))
    apart = next(n * decade for n in (1, 2, 2.5, 5, 10) if n * decade >= rough)
    return {"range": [0, float(last)], "tick0": 0, "dtick": max(1, math.ceil(apart))}


def _log_ticks(low: float, high: float) -> dict | None:
    """Ticks for a logarithmic axis: 1, 2, 5 over one or two decades, powers of ten over more; None below a factor 10."""
    if low <= 0 or high < 10 * low:
        return None
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = max(1, len(decades) // 5)
    digits = (1, 2, 5) if high < 100 * low else (1,)
    ticks = [n * 10.0**d for d in decades[::every] for n in digits if low <= n * 10.0**d <= high]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _window(points: int) -> int:
    """Smooth over 2 % of the run: long enough to see through the noise of batches, short enough to keep the bends."""
    return max(1, points // 50)


def _train_and_val(train, val, unit: str, name: str) -> list[dict]:
    """The noisy loss of each batch, pale; its mean, strong; the validation loss with a mark at each measurement."""
    hover = f"step %{{x:,}}<br>%{{y:.4f}} {unit}<extra>%{{fullData.name}}</extra>"
    traces = []
    if len(train[0]):
        x, y = train
        if _window(len(y)) > 1:
            traces.append(_line(x, y, "each batch", "var(--train)", width=1, opacity=0.28, hoverinfo="skip"))
        traces.append(_line(x, smooth(y, _window(len(y))), "train", "var(--train)", hovertemplate=hover))
    if len(val[0]):
        marks = {"mode": "lines+markers", "cliponaxis": False, "marker": {"color": "var(--val)", "size": 6}}
        line = _line(*val, "validation", "var(--val)", hovertemplate=hover, **marks)
        if len(val[0]) == 1:  # no line leads to it: drawn to be seen beside the training loss
            line["marker"] = {"color": "var(--val)", "size": 13, "line": {"color": "var(--paper)", "width": 2}}
        traces.append(line)
    return [{**trace, "meta": name} for trace in traces]


def _growth(lines: list[dict]) -> dict:
    """A dotted line, with its words, where the rows grew: loss and throughput jump there for that reason alone."""
    shapes, words, before = [], [], None
    for line in lines:
        now = line.get("batch"), line.get("context")
        if None in now or now == before:
            continue
        if before:
            at = line["step"]
            shapes.append({"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper",
                           "line": {"color": "var(--ink-2)", "width": 1, "dash": "dot"}})
            words.append({"x": at, "y": 0.72, "yref": "paper", "text": f"{now[0]} × {now[1]} tokens", "showarrow": False,
                          "xanchor": "left", "xshift": 5, "font": {"size": 12}})
        before = now
    few = len(shapes) <= 6
    return {"shapes": shapes, "annotations": words} if shapes and few else {}


def loss_figure(lines: list[dict]) -> dict:
    """Loss by step, per token (nats) and in bits per byte; the page's buttons choose one by the traces' `meta`.

    Training batches are only known per token. Their bits per byte use the validation text's own tokens per byte.
    """
    train, val, bits = column(lines, "loss"), column(lines, "val_loss"), column(lines, "val_bpb")
    if not len(train[0]) and not len(val[0]):
        raise Missing("metrics.jsonl holds no loss yet.")
    data = _train_and_val(train, val, "nats per token", "token")
    if len(bits[0]):
        pairs = [(l["val_bpb"], l["val_loss"]) for l in lines if l.get("val_bpb") and l.get("val_loss")]
        per_nat = np.mean([bpb / nats for bpb, nats in pairs]) if pairs else None
        train_bits = (train[0], train[1] * per_nat) if per_nat else (train[0][:0], train[1][:0])
        data += [{**trace, "visible": False} for trace in _train_and_val(train_bits, bits, "bits per byte", "byte")]
    best = None
    if len(val[0]):
        at = int(np.argmin(val[1]))
        best = {"step": int(val[0][at]), "loss": float(val[1][at]), "only": len(val[0]) == 1}
    last = max(series[0][-1] for series in (train, val) if len(series[0]))
    layout = {
        "xaxis": {"title": {"text": "step"}, **_steps_axis(last)}, "yaxis": {"title": {"text": "loss"}},
        "legend": {"x": 1, "y": 1, "xanchor": "right", "yanchor": "top"}, "showlegend": True,
        **_growth(lines),
    }
    return {"id": "loss", "data": data, "layout": layout, "height": 400, "bits": len(bits[0]) > 0, "best": best}


def _small(lines, key, identity, title, colour, hover, *, log=False, scale=1.0, smoothed=False) -> dict | None:
    x, y = column(lines, key)
    if not len(y):
        return None
    y = y * scale
    data = [_line(x, y, title, colour, width=1.5, hovertemplate=f"step %{{x:,}}<br>{hover}<extra></extra>")]
    if smoothed and _window(len(y)) > 1:
        data[0] |= {"opacity": 0.3, "hoverinfo": "skip", "hovertemplate": None}
        mean = smooth(y, _window(len(y)))
        data.append(_line(x, mean, title, colour, hovertemplate=f"step %{{x:,}}<br>{hover}<extra></extra>"))
    yaxis = (log and _log_ticks(y.min(), y.max())) or {"rangemode": "tozero", "nticks": 5}
    return {"id": identity, "title": title, "data": data, "height": 210,
            "layout": {"xaxis": _steps_axis(x[-1]), "yaxis": yaxis}}


def training(lines: list[dict]) -> dict:
    """Everything the page shows of the training: figures, the best evaluation, and how many steps were skipped."""
    loss = loss_figure(lines)
    small = [
        _small(lines, "lr", "lr", "Learning rate", "var(--ink-2)", "%{y:.2e}"),
        _small(lines, "tokens_per_second", "speed", "Tokens/s", "var(--ink-2)", "%{y:,.0f}", smoothed=True),
        _small(lines, "grad_norm", "grad", "Gradient norm", "var(--ink-2)", "%{y:.3g}", log=True, smoothed=True),
    ]
    if len(column(lines, "val_accuracy")[1]) > 1:
        small.append(_small(lines, "val_accuracy", "accuracy", "Right on validation text", "var(--val)", "%{y:.1f} %", scale=100))
    _, mfu = column(lines, "mfu")
    # a batch without a finite loss is written as null, or as the bare NaN that Python's json reads back
    skipped = sum("loss" in l and not math.isfinite(l["loss"] if l["loss"] is not None else math.nan) for l in lines)
    return {
        "loss": loss, "small": [figure for figure in small if figure], "best": loss["best"], "skipped": skipped,
        "mfu": float(np.median(mfu)) if len(mfu) else None,
        "steps": max(int(l["step"]) for l in lines),
    }
