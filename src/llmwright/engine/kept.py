"""One text after the other over one cache: what a text begins with is not computed again if the one before began so.

The turns of a conversation are such texts: each begins with all that was said before.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..model.cache import ROOM, KVCache
from ..model.decoder import Decoder
from ..model.paged import RowCache

PIECE = 256  # tokens of a prompt that are read before somebody is asked again whether to go on


class Stopped(Exception):
    """Somebody said stop (`KeptStepper.stopped`); what was computed is kept."""


class KeptStepper:
    """The stepper of one text (`stepper.Stepper`), and the maker of the next: `generate(…, make_stepper=kept)`.

    `ids` are the tokens whose keys and values are held, `reused` how many of the last prompt's were there already.
    `stopped()` is asked before each token and each piece of a prompt; when it says True, `Stopped` is raised.
    """

    def __init__(self, model: Decoder):
        self.model, self.ids, self.reused = model, [], 0
        kind = RowCache if model.tape or model.steady else KVCache
        self.cache = kind(model.config, 1, ROOM, dtype=model.dtype, device=model.device)
        self.stopped: Callable[[], bool] = lambda: False
        # where angles depend on the length of the whole text, keys made at another length are wrong
        scaling = getattr(model.config.positions, "scaling", None)
        self.keeps = scaling is None or scaling.kind != "dynamic"

    def __call__(self, model, prompts: Sequence[list[int]], max_tokens, start=(), window=None) -> "KeptStepper":
        self.starts = list(prompts)
        return self

    def prefill(self) -> Tensor:
        (prompt,) = self.starts
        same = next((i for i, (a, b) in enumerate(zip(self.ids, prompt)) if a != b), min(len(self.ids), len(prompt)))
        # the last token is read again: what comes after it is asked for
        self.reused = min(same, len(prompt) - 1) if self.keeps else 0
        self.ids = self.ids[: self.reused]
        self.cache.shorten(self.reused)
        piece = PIECE if self.keeps else len(prompt)
        for at in range(self.reused, len(prompt), piece):
            logits = self._read(prompt[at : at + piece], last=at + piece >= len(prompt))
        return logits

    def step(self, ids: Tensor) -> Tensor:
        return self._read(ids.tolist(), last=True)

    def _read(self, ids: list[int], last: bool) -> Tensor | None:
        if self.stopped():
            raise Stopped
        needed = len(self.ids) + len(ids)
        self.cache.grow(needed, self.model.config.context)
        self.cache.shorten(len(self.ids))  # if an error ended the step before in its middle
        places = torch.arange(len(self.ids), needed, device=self.model.device)[None]
        if self.cache.paged:
            self.cache.place(len(ids))
        hidden = self.model.hidden(torch.tensor([ids], device=self.model.device), positions=places, cache=self.cache)
        self.ids = self.ids + ids
        return self.model.logits(hidden[:, -1]) if last else None

    def select(self, rows: Tensor) -> None:
        raise NotImplementedError("one text at a time")

    widen = reorder = select
