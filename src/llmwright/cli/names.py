"""Tokens as people read them."""


class Names:
    """The token of each id: its text in quotes, special ones bare, bytes that are no text by themselves as bytes."""

    def __init__(self, tokenizer):
        self.tokenizer, self.special = tokenizer, {i: text for text, i in tokenizer.special_tokens.items()}

    def __getitem__(self, i: int) -> str:
        if i in self.special:
            return self.special[i]
        if i >= self.tokenizer.vocab_size:
            return f"[{i}]"
        part = self.tokenizer.token_bytes(i)
        try:
            return repr(part.decode())
        except UnicodeDecodeError:
            return repr(part)


def width(text: str) -> int:
    """The columns it takes in a terminal."""
    from rich.cells import cell_len

    return cell_len(text)


def cut(text: str, columns: int) -> str:
    """`text`, at most so many columns of it."""
    from rich.cells import set_cell_size

    return text if width(text) <= columns else set_cell_size(text, columns - 1) + "…"


def fit(text: str, columns: int) -> str:
    """`text`, cut or filled up to exactly so many columns."""
    text = cut(text, columns)
    return text + " " * (columns - width(text))
