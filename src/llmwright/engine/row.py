"""One text as it is written: its next token chosen, taken in, and turned into text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .penalties import penalize
from .sampler import Sampling, likeliest, sample
from .text_stream import TextStream


@dataclass
class Generation:
    """What followed a prompt.

    `ids` are the generated tokens, `text` what they say, without an end token or a stop string. `log_probs`: natural
    log-probability of each id under the model itself, before penalties, temperature and cuts; `top_log_probs`, where
    asked for: the likeliest tokens of each place, as (id, log-probability). `finish_reason`: "stop" (an end token or a
    stop string) or "length" (`max_tokens`, or the end of the model's context). `score`: of a beam, see `beam.Beams`.
    `prompt_log_probs`, where asked for: of each token of the prompt after those before it, None for the first;
    `prompt_top_log_probs`: the likeliest tokens there.
    """

    prompt: str
    text: str = ""
    ids: list[int] = field(default_factory=list)
    finish_reason: str = "length"
    log_probs: list[float] = field(default_factory=list)
    top_log_probs: list[list[tuple[int, float]]] = field(default_factory=list)
    score: float | None = None
    prompt_log_probs: list[float | None] | None = None
    prompt_top_log_probs: list[list[tuple[int, float]] | None] | None = None


@dataclass
class Row:
    """One text on its way. It begins after `start` (a decoder's prompt), has at most `limit` tokens, and ends with one
    of `ends`. `log_probs`: whether they are wanted, and `top` of the likeliest of each place. `mask(logits, written)` puts
    -inf into the logits (V,) of tokens that must not come after those `written`; it may raise RequestError."""

    result: Generation
    start: Sequence[int]
    sampling: Sampling
    generator: torch.Generator
    limit: int
    ends: frozenset[int]
    stream: TextStream
    top: int = 0
    log_probs: bool = True
    mask: Callable[[Tensor, list[int]], None] | None = None
    done: bool = False

    def advance(self, token: int) -> str:
        """Take in the token that was just chosen; returns the text that is certain by it."""
        result = self.result
        result.ids.append(token)
        if token in self.ends:
            result.finish_reason, self.done = "stop", True
            piece = self.stream.finish()
        else:
            piece = self.stream.push(token)
            if not self.stream.stopped and len(result.ids) >= self.limit:
                self.done = True
                piece += self.stream.finish()
            if self.stream.stopped:
                result.finish_reason, self.done = "stop", True
        result.text = self.stream.text
        return piece


def choose(logits: Tensor, rows: Sequence[Row], vocab_size: int) -> list[int]:
    """The next token of each row, by its own settings and random numbers; log-probabilities go into its result, of rows
    that are not done. `logits` (B, V) float32; those beyond `vocab_size` are of rows that no text stands for."""
    logits[:, vocab_size:] = -torch.inf
    changed = logits
    if any(row.sampling.penalizes for row in rows):
        changed = torch.cat([
            penalize(logits[i : i + 1], [row.sampling], [row.start], [row.result.ids], row.ends)
            for i, row in enumerate(rows)
        ])
    if any(row.mask for row in rows):
        changed = changed.clone()
        for i, row in enumerate(rows):
            if row.mask:
                row.mask(changed[i], row.result.ids)
    ids = sample(changed, [row.sampling for row in rows], [row.generator for row in rows])
    wanted = [i for i, row in enumerate(rows) if row.log_probs and not row.done]
    if wanted:
        log_probs = (logits if len(wanted) == len(rows) else logits[wanted]).log_softmax(-1)
        chosen = log_probs.gather(-1, ids[wanted, None])[:, 0].tolist()
        best = likeliest(log_probs, max(rows[i].top for i in wanted))
        for at, i in enumerate(wanted):
            rows[i].result.log_probs.append(chosen[at])
            if rows[i].top:
                rows[i].result.top_log_probs.append(best[at][: rows[i].top])
    return ids.tolist()
