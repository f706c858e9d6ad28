"""The tokenizer: its vocabulary by length, its longest tokens, and a text cut into tokens."""

from collections import Counter
from pathlib import Path

from .embedding import visible
from .inputs import Missing

EXAMPLE_CHARACTERS = 900
LONGEST = 20  # bytes; longer tokens share the histogram's last bar


def load(run: Path):
    """The run's tokenizer. Raises Missing."""
    from ..errors import Error

    for directory in (run / "data" / "tokenizer", run / "data", run / "model"):
        if (directory / "tokenizer.json").exists():
            from ..tokens.load import load as load_tokenizer

            try:
                return load_tokenizer(directory)
            except Error as error:
                raise Missing(f"The tokenizer cannot be read: {error}") from None
    raise Missing("This run has no tokenizer.json.")


def cut(tokenizer, text: str) -> list[dict]:
    """`text` as pieces to colour. A character that several tokens share is drawn once, with the last of them."""
    pieces, held, ids = [], b"", []
    for i in tokenizer.encode(text):
        held, ids = held + tokenizer.token_bytes(int(i)), [*ids, int(i)]
        try:
            shown = held.decode("utf-8")
        except UnicodeDecodeError:
            continue
        pieces.append({"text": shown, "id": " + ".join(map(str, ids)), "count": len(ids)})
        held, ids = b"", []
    return pieces


def statistics(tokenizer, example: str, bytes_per_token: float | None) -> dict:
    """Figures, the histogram of token lengths as a figure, and the example cut into tokens."""
    from ..tokens.statistics import statistics as measure

    figures = measure(tokenizer, top=400)
    lengths = Counter()
    for length, count in figures["lengths"].items():
        lengths[min(int(length), LONGEST)] += count
    x = list(range(1, max(lengths, default=1) + 1))
    ticks = x if len(x) < 10 else [n for n in x if n in (1, 5, 10, 15, LONGEST)]
    histogram = {
        "id": "lengths", "title": "Tokens by length in bytes", "height": 230,
        "data": [{"type": "bar", "x": x, "y": [lengths[n] for n in x], "marker": {"color": "var(--train)"},
                  "hovertemplate": "%{y:,} tokens of %{x} bytes<extra></extra>"}],
        "layout": {"bargap": 0.25, "yaxis": {"nticks": 4},
                   "xaxis": {"tickvals": ticks, "ticktext": [f"{n}+" if n == LONGEST else str(n) for n in ticks]}},
    }
    # the longest ones that hold a letter: runs of spaces and dashes say little
    words = [t["id"] for t in figures["longest"] if any(c.isalpha() for c in t["text"].replace("\\n", ""))]
    pieces = cut(tokenizer, example[:EXAMPLE_CHARACTERS]) if example else []
    count, size = sum(piece["count"] for piece in pieces), sum(len(piece["text"].encode()) for piece in pieces)
    return {
        "kind": figures["kind"], "vocab_size": figures["vocab_size"], "specials": list(figures["specials"]),
        "bytes_per_token": bytes_per_token or (size / count if count else None),
        "longest": [visible(tokenizer.token_bytes(i)) for i in words[:18]], "histogram": histogram, "pieces": pieces,
        "example_bytes": size, "example_tokens": count,
    }
