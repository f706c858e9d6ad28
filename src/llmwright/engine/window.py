"""Text without an end: a window that slides over it, with attention sinks (Xiao et al. 2023, "Efficient Streaming
Language Models with Attention Sinks").

The cache holds at most `size` positions. When it is full, the oldest go, except the first few: models leave much of
their attention on the first tokens of a text whatever these say, and lose their way without them (section 3.1).
Positions count within the cache (section 3.2): what stands after the gap moves up, so no position is ever beyond what
the model was trained on. Rotary keys are turned back by as much, since two turns are one turn; ALiBi and relative
positions look at places in the cache anyway.

An eighth of the window goes at a time. With one token at a time, as in the paper, each step would move the whole cache,
and rounding would add up in keys that are turned at every step; so each is turned at most eight times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import RequestError
from ..model.cache import ROOM, KVCache
from ..model.config import Rotary
from ..model.decoder import Decoder


@dataclass(frozen=True)
class Window:
    """`size`: positions that are held, a token's own included. `sinks`: how many of the first ones stay."""

    size: int
    sinks: int = 4

    def __post_init__(self):
        if self.sinks < 0 or self.size < self.sinks + 2:
            raise RequestError(
                f"a window of {self.size} positions with {self.sinks} sinks is not allowed: sinks are 0 or more, and "
                f"the window has at least {max(self.sinks, 0) + 2} positions, them included"
            )

    @property
    def drop(self) -> int:
        """Positions that go at a time."""
        return max(1, (self.size - self.sinks) // 8)


def check(model, window: Window) -> None:
    """Raise RequestError where this model cannot go on in a window of this size."""
    if not isinstance(model, Decoder):
        raise RequestError("a window slides over a decoder's own text: this model is none")
    context, scaling = model.config.context, getattr(model.config.positions, "scaling", None)
    if isinstance(model.config.positions, Rotary) and window.size > context:
        raise RequestError(f"the window of {window.size} positions is longer than the model's context of {context}")
    if scaling and scaling.kind == "dynamic" and window.size > scaling.original_context:
        raise RequestError(
            f"the window of {window.size} positions is longer than the {scaling.original_context} that the model was "
            "trained on: its rope scaling is dynamic, and keys made at one length do not fit another"
        )
    nothing = torch.zeros(1, 0, dtype=torch.long, device=model.device)
    # does the position scheme allow it?
    model.slide(KVCache(model.config, 1, 1, device=model.device), nothing, nothing)


class WindowStepper:
    """A batch of texts over one cache, each in its own window (`stepper.Stepper`).

    Rows end at the same place of the cache, and a row that holds less than the longest is padded on the left. Each row
    gives up its own oldest positions when it is full itself, so its text does not depend on its neighbours.
    """

    def __init__(self, model: Decoder, prompts: Sequence[list[int]], window: Window):
        check(model, window)
        if model.steady:
            raise RequestError("a window and deterministic texts contradict each other: leave one out")
        self.model, self.window, self.starts = model, window, list(prompts)
        room = min(window.size, max(map(len, prompts)) + ROOM)
        self.cache = KVCache(model.config, len(prompts), room, dtype=model.dtype, device=model.device)
        self.held = torch.zeros(len(prompts), 1, dtype=torch.long, device=model.device)  # of each row, (B, 1)

    def prefill(self) -> Tensor:
        device, T = self.model.device, max(map(len, self.starts))
        ids = torch.tensor([[row[0]] * (T - len(row)) + row for row in self.starts], device=device)  # (B, T)
        real = torch.tensor([[False] * (T - len(row)) + [True] * len(row) for row in self.starts], device=device)
        at = 0
        while True:
            end = min(at + self.room(), T)
            hidden = self.feed(ids[:, at:end], real[:, at:end])
            if end == T:
                return self.model.logits(hidden[:, -1])
            at = end

    def step(self, ids: Tensor) -> Tensor:
        self.room()
        return self.model.logits(self.feed(ids[:, None], torch.ones_like(ids[:, None], dtype=torch.bool))[:, -1])

    def feed(self, ids: Tensor, real: Tensor) -> Tensor:
        """`ids` (B, T), where `real` not padding, for which there is room → states (B, T, D)."""
        past, T, device = self.cache.length, ids.shape[1], ids.device
        self.cache.grow(past + T, self.window.size)
        positions = (self.held + real.long().cumsum(1) - 1).clamp(min=0)  # (B, T)
        before = torch.arange(past, device=device) >= past - self.held  # (B, past)
        seen = torch.cat((before, real), 1)[:, None, None]  # (B, 1, 1, S)
        mask = None
        if not seen.all():  # a padded place sees itself, so that no softmax is empty
            mask = seen | torch.eye(past + T, dtype=torch.bool, device=device)[past:]
        hidden = self.model.hidden(ids, positions=positions, mask=mask, cache=self.cache)
        self.held = self.held + real.sum(1, keepdim=True)
        return hidden

    def room(self) -> int:
        """Makes room where there is none. Returns for how many positions there is some."""
        S, size, sinks = self.cache.length, self.window.size, self.window.sinks
        if S == size:
            gone = self.window.drop * (self.held == size)  # (B, 1)
            kept = self.held - gone
            longest = int(kept.max())
            # counted from the row's first token; before it is padding
            place = torch.arange(longest, device=kept.device) - (longest - kept)  # (B, longest)
            by = gone * (place >= sinks)
            self.model.slide(self.cache, (S - self.held + place + by).clamp(min=0), -by)
            self.held, S = kept, longest
        return size - S

    def select(self, rows: Tensor) -> None:
        self.cache.select(rows)
        self.held, self.starts = self.held[rows], [self.starts[i] for i in rows.tolist()]
