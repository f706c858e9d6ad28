"""What goes around a text before a model reads it, [CLS] text [SEP] or <s> text </s> or text </s>, and around a pair.

A tokenizer.json says it in its post-processor. `Tokenizer.encode` leaves it out, since training packs bare texts; this
puts it on, and cuts what is too long so that the marks stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import RequestError

Piece = tuple[tuple[int, ...] | str, int]  # ids, or "A" or "B" for the text that stands there; and the token type


@dataclass(frozen=True)
class Around:
    """`single` and `pair`: what stands in a row, in order."""

    single: tuple[Piece, ...] = (("A", 0),)
    pair: tuple[Piece, ...] = (("A", 0), ("B", 1))

    def marks(self, pair: bool = False) -> int:
        """Tokens that are not the text's."""
        return sum(len(what) for what, _ in (self.pair if pair else self.single) if not isinstance(what, str))

    def put(
        self, ids: Sequence[int], other: Sequence[int] | None = None, max_tokens: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """A text's `ids`, or two texts', as a model reads them: (T,) ids and (T,) token types, int64.

        With `max_tokens` no more come back: the end of the text is cut, of two that of the longer until they are
        equal.
        """
        pair = other is not None
        if max_tokens is not None:
            room = max_tokens - self.marks(pair)
            if room < 1 + pair:
                raise RequestError(f"{max_tokens} tokens leave no room for a text beside its {self.marks(pair)} marks")
            ids, other = _cut(ids, other, room)
        texts = {"A": ids, "B": other}
        row = self.pair if pair else self.single
        pieces = [(texts[what] if isinstance(what, str) else what, kind) for what, kind in row]
        return (
            np.concatenate([np.asarray(part, np.int64) for part, _ in pieces]),
            np.repeat([kind for _, kind in pieces], [len(part) for part, _ in pieces]),
        )


def _cut(ids, other, room: int):
    if other is None:
        return ids[:room], None
    shorter = min(len(ids), len(other), room // 2)
    if len(ids) > len(other):
        return ids[: room - shorter], other[:shorter]
    return ids[:shorter], other[: room - shorter]


def read(tree: dict) -> Around:
    """What the post-processor of a tokenizer.json puts around a text; nothing where it has none."""
    found = Around()
    for step in _steps(tree.get("post_processor")):
        kind = step.get("type")
        try:
            if kind == "TemplateProcessing":
                found = Around(_template(step, "single"), _template(step, "pair"))
            elif kind in ("BertProcessing", "RobertaProcessing"):
                (_, sep), (_, cls) = step["sep"], step["cls"]
                begin, end, b = ((int(cls),), 0), ((int(sep),), 0), int(kind == "BertProcessing")
                middle = (end,) if b else (end, end)
                found = Around((begin, ("A", 0), end), (begin, ("A", 0), *middle, ("B", b), (end[0], b)))
            elif kind != "ByteLevel":  # which changes offsets alone
                raise RequestError(f"tokenizer.json: post_processor {kind!r} is not supported")
        except (LookupError, TypeError, ValueError, AttributeError):
            raise RequestError(f"tokenizer.json: its post_processor of type {kind!r} cannot be read") from None
    return found


def _steps(part: dict | None) -> list[dict]:
    if part is None:
        return []
    return [step for child in part["processors"] for step in _steps(child)] if "processors" in part else [part]


def _template(step: dict, which: str) -> tuple[Piece, ...]:
    pieces = []
    for entry in step[which]:
        (kind, said), = entry.items()
        if kind == "Sequence":
            pieces.append((said["id"], said["type_id"]))
        else:
            pieces.append((tuple(step["special_tokens"][said["id"]]["ids"]), said["type_id"]))
    return tuple(pieces)
