"""Text grows one position a step, with what was computed kept: the one thing that a decoder and an encoder-decoder do
differently, behind one protocol, so that sampling and beam search are written once.

A decoder's prompt goes through it once (prefill). Prompts of unequal length share a batch: shorter ones are padded on
the left, where a mask hides the padding, and each row counts its own positions, so a prompt's text does not depend on
its neighbours. An encoder-decoder's source goes through the encoder once, padded on the right, and all texts begin
with the start token.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..errors import RequestError
from ..model.cache import ROOM, KVCache
from ..model.decoder import Decoder
from ..model.encoder_decoder import EncoderDecoder
from ..model.paged import RowCache
from ..model.transformer import Transformer
from .prompt import positions
from .window import Window, WindowStepper


class Stepper(Protocol):
    """A batch of texts on their way.

    `prefill()` once, then `step(ids)` with the token chosen in each row: both give logits (B, V) float32 of what comes
    next. `select(rows)` keeps only these rows, in this order; one may come several times. For beams, after the prefill:
    `widen(n)` makes n rows of each, side by side; `reorder(rows)` continues in row i what row `rows[i]` of the same
    prompt wrote, and `select` then takes all rows of a prompt or none.
    """

    starts: list[list[int]]  # the ids each row's text began with

    def prefill(self) -> Tensor: ...
    def step(self, ids: Tensor) -> Tensor: ...
    def select(self, rows: Tensor) -> None: ...
    def widen(self, n: int) -> None: ...
    def reorder(self, rows: Tensor) -> None: ...


def stepper(
    model: Transformer, prompts: Sequence[list[int]], max_tokens: int, start: Sequence[int] = (),
    window: Window | None = None,
) -> Stepper:
    """The stepper for a model's kind. `start`: what the texts of an encoder-decoder begin with. `window`: what of a
    decoder's text is held, where not all."""
    if window:
        return WindowStepper(model, prompts, window)
    if isinstance(model, Decoder):
        return DecoderStepper(model, prompts, max_tokens)
    if isinstance(model, EncoderDecoder):
        return EncoderDecoderStepper(model, prompts, start, max_tokens)
    raise RequestError(NO_WRITER)


NO_WRITER = (
    "this model is an encoder: it reads text and writes none; it can embed (llmwright embed MODEL \"a sentence\") and, "
    "with a head for it, fill a mask"
)


class DecoderStepper:
    """`hidden` of a decoder, over a cache of keys and values."""

    def __init__(self, model: Decoder, prompts: Sequence[list[int]], max_tokens: int):
        self.model, self.starts = model, list(prompts)
        lengths = [len(ids) for ids in prompts]
        self.longest, self.last = max(lengths), positions(model.config) - 1
        # the last token is never fed
        self.most = self.longest + min(max_tokens, self.last + 1 - min(lengths)) - 1
        room = min(self.most, self.longest + ROOM)  # the rest when it comes to that
        self.padding = torch.tensor([self.longest - n for n in lengths], device=model.device)[:, None]  # (B, 1)
        self.padded = min(lengths) < self.longest
        kind = RowCache if model.steady or (model.tape and not self.padded) else KVCache
        self.cache = kind(model.config, len(prompts), room, dtype=model.dtype, device=model.device)
        self.place = torch.empty(0)  # (B, 1): the position of each row's last token

    def prefill(self) -> Tensor:
        T, device = self.longest, self.model.device
        # padding holds the row's own first id: any known token will do, the mask hides it
        ids = torch.tensor([[row[0]] * (T - len(row)) + row for row in self.starts], device=device)  # (B, T)
        place = torch.arange(T, device=device)[None]  # (1, T)
        at = (place - self.padding).clamp(min=0)  # (B, T)
        mask = None
        if self.padded:  # a padded place sees itself, so that no softmax is empty
            seen = place >= self.padding  # (B, S)
            mask = (seen[:, None, :] | torch.eye(T, dtype=torch.bool, device=device))[:, None]  # (B, 1, T, S)
        self.place = at[:, -1:]
        return self._logits(ids, at, mask)

    def step(self, ids: Tensor) -> Tensor:
        # a finished row goes on unseen; it stays inside the context's positions
        self.place = (self.place + 1).clamp(max=self.last)
        mask = None
        if self.padded:
            places = torch.arange(self.cache.length + 1, device=ids.device)[None]
            mask = (places >= self.padding)[:, None, None]  # (B, 1, 1, S)
        return self._logits(ids[:, None], self.place, mask)

    def _logits(self, ids: Tensor, at: Tensor, mask: Tensor | None) -> Tensor:
        self.cache.grow(self.cache.length + ids.shape[1], self.most)
        if self.cache.paged:
            self.cache.place(ids.shape[1])
        return self.model.logits(self.model.hidden(ids, positions=at, mask=mask, cache=self.cache)[:, -1])

    def select(self, rows: Tensor) -> None:
        self.cache.select(rows)
        self.padding, self.place = self.padding[rows], self.place[rows]
        self.starts = [self.starts[i] for i in rows.tolist()]

    def widen(self, n: int) -> None:
        self.select(torch.arange(len(self.starts), device=self.padding.device).repeat_interleave(n))

    def reorder(self, rows: Tensor) -> None:
        self.cache.reorder(rows, self.longest)  # the prompt is the same in all beams


class EncoderDecoderStepper:
    """`hidden` of the decoder beside a `Memory` of the sources, over a cache of keys and values."""

    def __init__(self, model: EncoderDecoder, sources: Sequence[list[int]], start: Sequence[int], max_tokens: int):
        self.model, self.sources, self.start, self.width = model, list(sources), list(start), 1
        self.starts = [self.start] * len(sources)
        self.most = len(start) + min(max_tokens, positions(model.config) - len(start)) - 1

    def prefill(self) -> Tensor:
        model, device = self.model, self.model.device
        lengths = torch.tensor([len(ids) for ids in self.sources], device=device)[:, None]  # (B, 1)
        S = int(lengths.max())
        ids = torch.tensor([row + row[-1:] * (S - len(row)) for row in self.sources], device=device)  # (B, S)
        mask = torch.arange(S, device=device)[None] < lengths  # (B, S)
        self.memory = model.encode(ids, None if mask.all() else mask, keep=True)
        room = min(self.most, len(self.start) + ROOM)
        self.cache = KVCache(model.config, len(ids), room, dtype=model.dtype, device=device)
        return self._logits(torch.tensor([self.start] * len(ids), device=device))

    def step(self, ids: Tensor) -> Tensor:
        return self._logits(ids[:, None])

    def _logits(self, ids: Tensor) -> Tensor:
        self.cache.grow(self.cache.length + ids.shape[1], self.most)
        return self.model.logits(self.model.hidden(ids, self.memory, cache=self.cache)[:, -1])

    def select(self, rows: Tensor) -> None:
        self.cache.select(rows)
        self.memory.select(rows[:: self.width] // self.width)
        self.starts = [self.start] * len(rows)

    def widen(self, n: int) -> None:
        # the memory is not repeated: the rows of a source attend to it together
        self.cache.select(torch.arange(len(self.starts), device=self.model.device).repeat_interleave(n))
        self.width, self.starts = n, [self.start] * (n * len(self.starts))

    def reorder(self, rows: Tensor) -> None:
        self.cache.reorder(rows)
