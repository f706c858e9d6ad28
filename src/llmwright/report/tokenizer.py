"""The tokenizer: its vocabulary by length, its longest tokens, and a text cut into tokens."""

import unicodedata
from collections import Counter
from pathlib import Path

from .embedding import visible
from .inputs import Missing

EXAMPLE_CHARACTERS = 900


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


def longest(tokens: list[bytes], n: int = 18) -> list[str]:
    """The longest tokens of the vocabulary that hold a letter: runs of spaces and dashes say little."""
    words = [t for t in tokens if any(unicodedata.category(c)[0] == "L" for c in t.decode("utf-8", "ignore"))]
    return [visible(t) for t in sorted(words, key=lambda t: (-len(t), t))[:n]]


def statistics(tokenizer, example: str, bytes_per_token: float | None) -> dict:
    """Figures, the histogram of token lengths as a figure, and the example cut into tokens."""
    special = set(tokenizer.special_tokens.values())
    tokens = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size) if i not in special]
    lengths = Counter(min(len(t), 20) for t in tokens if t)
    x = list(range(1, max(lengths, default=1) + 1))
    histogram = {
        "id": "lengths", "title": "Tokens by length in bytes", "height": 230,
        "data": [{"type": "bar", "x": x, "y": [lengths[n] for n in x], "marker": {"color": "var(--train)"},
                  "hovertemplate": "%{y:,} tokens of %{x} bytes<extra></extra>"}],
        "layout": {"bargap": 0.25, "yaxis": {"nticks": 4}, "xaxis": {"tickvals": [n for n in x if n in (1, 5, 10, 15, 20)],
                   "ticktext": ["20+" if n == 20 else str(n) for n in x if n in (1, 5, 10, 15, 20)]}},
    }
    example = example[:EXAMPLE_CHARACTERS]
    pieces = cut(tokenizer, example) if example else []
    count = sum(piece["count"] for piece in pieces)
    if bytes_per_token is None and count:
        bytes_per_token = len(example.encode()) / count
    return {
        "kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size, "specials": list(tokenizer.special_tokens),
        "bytes_per_token": bytes_per_token, "longest": longest(tokens), "histogram": histogram, "pieces": pieces,
        "example_bytes": len(example.encode()), "example_tokens": count,
    }
