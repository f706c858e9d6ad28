"""The embedding maps as plotly figures: the same tokens before and after training, side by side."""

from html import escape
from pathlib import Path

import numpy as np

from . import embedding
from .figures import percent
from .inputs import Missing, section

DRAWN = 1500  # points a map: enough for its shape, few enough to stay quick on a phone
NEIGHBOURS = 500  # the most frequent tokens, for t-SNE


def _chosen(counts: np.ndarray) -> np.ndarray:
    """Token ids to draw: the most frequent ones, and an even sample of the rest down the ranks."""
    order = np.argsort(-counts, kind="stable")
    top, rest = order[:NEIGHBOURS], order[NEIGHBOURS:]
    even = np.linspace(0, len(rest) - 1, min(len(rest), DRAWN - len(top))).astype(int)
    return np.concatenate([top, rest[even]])


def _labelled(points: np.ndarray, texts: list[str], most: int = 60) -> list[int]:
    """Points, in order, whose label fits beside the labels already placed: no two overlap.

    A character takes about 1.5 % of the map's width and a line 4 % of its height at the size the page draws them.
    """
    scaled = (points - points.min(0)) / np.maximum(np.ptp(points, axis=0), 1e-12)
    placed: list[tuple[int, float, float, float]] = []
    for i, text in enumerate(texts):
        width = 0.018 * (len(text) + 1)
        x, y = scaled[i]
        clear = all(abs(y - b) > 0.04 or abs(x - a) > (width + w) / 2 for _, a, b, w in placed)
        if clear and len(text) <= 12:
            placed.append((i, x, y, width))
        if len(placed) == most:
            break
    return [i for i, *_ in placed]


def _figure(identity, title, points, tokens, kinds, counts, labels=False) -> dict:
    """One scatter with a trace a kind, in the same order everywhere, so that one legend serves all maps."""
    hover = [f"{escape(t, quote=False)}<br>{c:,} times" if c else escape(t, quote=False) for t, c in zip(tokens, counts)]
    data = []
    for n, name in enumerate(embedding.KINDS):
        member = [i for i, k in enumerate(kinds) if k == name]
        data.append({
            "type": "scatter", "mode": "markers", "name": name,
            "x": [float(f"{points[i, 0]:.4g}") for i in member], "y": [float(f"{points[i, 1]:.4g}") for i in member],
            "text": [hover[i] for i in member], "hovertemplate": f"%{{text}}<extra>{name}</extra>",
            "marker": {"size": 5, "color": f"var(--kind-{n})", "opacity": 0.75, "line": {"width": 0}},
        })
    if labels:
        shown = _labelled(points, tokens)
        data.append({
            "type": "scatter", "mode": "text", "hoverinfo": "skip", "textposition": "top center",
            "x": [float(points[i, 0]) for i in shown], "y": [float(points[i, 1]) for i in shown],
            "text": [escape(tokens[i], quote=False) for i in shown],
            "textfont": {"size": 11, "color": "var(--ink)"},
        })
    axis = {"visible": False, "zeroline": False}
    layout = {"xaxis": axis, "yaxis": axis, "margin": {"l": 4, "r": 4, "t": 4, "b": 4}, "hovermode": "closest"}
    return {"id": identity, "title": title, "data": data, "layout": layout, "height": 400}


def maps(run: Path, tokenizer, code: bool) -> dict:
    """PCA and t-SNE of the embedding, before and after. `tokenizer` gives each id's bytes. Raises Missing."""
    after = embedding.read_table(run / "model")
    before = section(embedding.read_table, run / "embeddings-start.safetensors")
    tables = [("after", "After", after)]
    if not isinstance(before, dict) and before.shape == after.shape:
        tables.insert(0, ("before", "Before", before))
    vocab = min(len(after), tokenizer.vocab_size)  # a table may be padded to a round number of rows
    counts = embedding.frequencies(run / "data", vocab)
    if not counts.any():
        counts = np.zeros(vocab, dtype=np.int64)  # then the ids' own order serves: merges come most frequent first
    ids = _chosen(counts)
    raw = [tokenizer.token_bytes(int(i)) for i in ids]
    tokens, kinds = [embedding.visible(t) for t in raw], [embedding.kind(t, code) for t in raw]
    few = min(NEIGHBOURS, len(ids))

    pca, tsne = [], []
    for name, title, table in tables:
        table = table[:vocab]
        if not np.isfinite(table).all():
            raise Missing("The embedding table holds values that are not finite.")
        points, shares = embedding.principal_components(table)
        title_pca = f"{title} training · {percent(float(shares.sum()))} of the variance"
        pca.append(_figure(f"pca-{name}", title_pca, points[ids], tokens, kinds, counts[ids]))
        near = embedding.neighbours(table[ids[:few]])
        tsne.append(_figure(f"tsne-{name}", f"{title} training", near, tokens[:few], kinds[:few], counts[ids[:few]],
                            labels=True))
    used = [(n, name) for n, name in enumerate(embedding.KINDS) if name in kinds]
    return {"pca": pca, "tsne": tsne, "kinds": used, "few": few, "drawn": len(ids), "vocab": vocab,
            "width": after.shape[1], "only_after": len(tables) == 1}
