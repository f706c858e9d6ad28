"""What the text so far changes in the logits of the next token, before the sampler sees them.

The order is: logit bias, repetition penalty (Keskar et al. 2019, section 4.1), frequency and presence penalties
(OpenAI's definitions: c(token) · frequency + [c(token) > 0] · presence is taken from the logit, where c counts the
tokens written, not the prompt's), bad words, no end before `min_tokens`. The fields are `sampler.Sampling`'s.
"""

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from ..errors import RequestError
from .sampler import Sampling


def penalize(
    logits: Tensor, settings: Sequence[Sampling], prompts: Sequence[Sequence[int]], written: Sequence[Sequence[int]],
    ends: Collection[int] = (),
) -> Tensor:
    """`logits` (B, V) → (B, V), `logits` itself where nothing changes.

    For each row: its settings, the ids its text began with, those written since. `ends`: tokens that end a text.
    Raises RequestError when a row has no token left to choose.
    """
    touched = [i for i, s in enumerate(settings) if s.penalizes]
    if not touched:
        return logits
    logits = logits.clone()
    for i in touched:
        _one(logits[i], settings[i], prompts[i], written[i], ends)
        if logits[i].max() == -math.inf:
            raise RequestError("logit_bias and bad_words leave no token to choose: forbid less")
    return logits


def _one(row: Tensor, s: Sampling, prompt: Sequence[int], written: Sequence[int], ends: Collection[int]) -> None:
    """Change `row` (V,)."""
    if s.logit_bias:
        ids, values = zip(*s.logit_bias)
        row[list(ids)] += torch.tensor(values, dtype=row.dtype, device=row.device)
    if s.repetition_penalty != 1 and (prompt or written):
        ids = torch.tensor([*prompt, *written], device=row.device).unique()
        ids = ids[ids < len(row)]  # some families' start token has no logit
        row[ids] = torch.where(row[ids] < 0, row[ids] * s.repetition_penalty, row[ids] / s.repetition_penalty)
    if (s.presence_penalty or s.frequency_penalty) and written:
        ids, counts = torch.tensor(written, device=row.device).unique(return_counts=True)
        row[ids] -= counts * s.frequency_penalty + s.presence_penalty
    if s.bad_words:
        longest = max(map(len, s.bad_words)) - 1
        tail = tuple(written[-longest:]) if longest else ()
        if len(tail) < longest:
            tail = (*prompt[len(tail) - longest :], *tail)
        for *before, last in s.bad_words:
            if not before or tail[-len(before) :] == tuple(before):
                row[last] = -math.inf
    if len(written) < s.min_tokens:
        row[list(ends)] = -math.inf
