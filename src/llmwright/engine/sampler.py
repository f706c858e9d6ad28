"""From logits to the next token: greedy, or a draw from the model's distribution, reshaped and cut.

The order is: temperature (Ackley, Hinton & Sejnowski 1985), top-k (Fan et al. 2018), top-p (Holtzman et al. 2020,
"nucleus"), min-p (Nguyen et al. 2024). Each cut works on what the cut before it left, renormalized, as in transformers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import RequestError, WorkError


COLDEST = 1e-5  # below, logits over the temperature leave float32's range, and the choice is greedy anyway


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    `temperature` 0 (and anything below 1e-5) is greedy: the most likely token, and the rest is ignored. `top_k` keeps the k most likely tokens
    (0: all), `top_p` the fewest tokens whose probabilities reach p (1: all), `min_p` those at least this share as
    likely as the most likely one (0: all). The same `seed` gives the same text; None draws a new one.
    Raises RequestError for a value outside its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None

    def __post_init__(self):
        for name, allowed, right in (
            ("temperature", 0 <= self.temperature < math.inf, "a number from 0 (greedy) up"),
            ("top_k", self.top_k >= 0 and self.top_k == int(self.top_k), "a whole number from 0 (all tokens) up"),
            ("top_p", 0 < self.top_p <= 1, "above 0, at most 1 (all tokens)"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 (all tokens) to 1"),
            ("seed", self.seed is None or 0 <= self.seed < 2**63, "a whole number from 0 up"),
        ):
            if not allowed:
                raise RequestError(f"{name} {getattr(self, name)} is not allowed: it must be {right}")

    @property
    def greedy(self) -> bool:
        return self.temperature < COLDEST


GREEDY = Sampling(temperature=0.0)


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """`logits` (B, V) float32 → (B, V) float32: what `sample` draws from. Not for a greedy choice."""
    # shifted before the division, so that a small temperature gives the greedy choice and not inf - inf
    scores = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    if 0 < sampling.top_k < scores.shape[-1]:
        least = scores.topk(sampling.top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -math.inf)
    p = scores.softmax(-1)
    if sampling.top_p < 1:
        ordered, index = p.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered  # probability of all more likely tokens
        p = torch.zeros_like(p).scatter(-1, index, ordered.masked_fill(before >= sampling.top_p, 0.0))
    if sampling.min_p > 0:
        p = p.masked_fill(p < sampling.min_p * p.amax(-1, keepdim=True), 0.0)
    return p / p.sum(-1, keepdim=True)


def sample(
    logits: Tensor, sampling: Sampling, generator: torch.Generator | Sequence[torch.Generator] | None = None
) -> Tensor:
    """`logits` (B, V) float32, -inf where a token must not be chosen → ids (B,) int64.

    `generator`: CPU generators, one for each row or one for all; a row takes one uniform number from it, so with one
    each a row's choices do not depend on its neighbours. Raises WorkError when logits are not finite.
    """
    if not logits.amax(-1).isfinite().all():  # amax hands NaN on
        raise WorkError("the model gives logits that are not finite: its weights are damaged or its training diverged")
    if sampling.greedy:
        return logits.argmax(-1)
    if isinstance(generator, torch.Generator) or generator is None:
        u = torch.rand(len(logits), 1, dtype=torch.float64, generator=generator)
    else:
        u = torch.cat([torch.rand(1, 1, dtype=torch.float64, generator=g) for g in generator])
    # inverse transform: the first token whose cumulative probability exceeds u; never one of probability 0
    cumulative = probabilities(logits, sampling).double().cumsum(-1)
    return torch.searchsorted(cumulative, u.to(logits.device) * cumulative[:, -1:], right=True).squeeze(-1)
