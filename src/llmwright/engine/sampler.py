"""From logits to the next token: greedy, or a draw from the model's distribution, reshaped and cut.

The order is: what the text so far changes (`penalties.py`), temperature (Ackley, Hinton & Sejnowski 1985), top-k (Fan
et al. 2018), top-p (Holtzman et al. 2020, "nucleus"), min-p (Nguyen et al. 2024), typical (Meister et al. 2023). Each
cut works on what the cut before it left, renormalized. It is the order of transformers.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import RequestError, WorkError

BLOCK = 128  # tokens whose probabilities are added first
COLDEST = 1e-5  # below, logits over the temperature leave float32's range, and the choice is greedy anyway


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    `temperature` 0 (and anything below 1e-5) is greedy: the most likely token, and the cuts are ignored. `top_k` keeps
    the k most likely tokens (0: all), `top_p` the fewest tokens whose probabilities reach p (1: all), `min_p` those at
    least this share as likely as the most likely one (0: all), `typical` those whose surprise is nearest to the
    distribution's mean surprise, as many as reach this probability (1: all). The same `seed` gives the same text; None
    draws a new one.

    What the text so far changes, in this order: `logit_bias` {token: what is added to its logit}; `repetition_penalty`
    divides the positive and multiplies the negative logits of tokens in the prompt and the text (Keskar et al. 2019;
    1: nothing); `presence_penalty` is taken once from the logit of each token in the text, `frequency_penalty` as often
    as it is there (OpenAI's definitions, which leave the prompt out); `bad_words` are token sequences that are never
    completed; `min_tokens` come before any end. Tokens are ids; `generate` takes their text too.

    Raises RequestError for a value outside its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    typical: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int | str, float] | tuple[tuple[int | str, float], ...] = ()
    bad_words: Sequence[str | Sequence[int]] = ()
    min_tokens: int = 0

    def __post_init__(self):
        for name, kind, allowed, right in (
            ("temperature", float, lambda x: 0 <= x <= 1e6, "from 0 (greedy) to 1,000,000"),
            ("top_k", int, lambda x: 0 <= x < 2**31, "a whole number from 0 (all tokens) up"),
            ("top_p", float, lambda x: 0 < x <= 1, "above 0, at most 1 (all tokens)"),
            ("min_p", float, lambda x: 0 <= x <= 1, "from 0 (all tokens) to 1"),
            ("typical", float, lambda x: 0 < x <= 1, "above 0, at most 1 (all tokens)"),
            ("repetition_penalty", float, lambda x: 1e-6 <= x <= 1e6, "from 0.000001 to 1,000,000 (1: none)"),
            ("presence_penalty", float, lambda x: abs(x) <= 1e6, "a number (0: none)"),
            ("frequency_penalty", float, lambda x: abs(x) <= 1e6, "a number (0: none)"),
            ("min_tokens", int, lambda x: 0 <= x < 2**31, "a whole number from 0 up"),
            ("seed", int, lambda x: 0 <= x < 2**63, "a whole number from 0 up"),
        ):
            value = getattr(self, name)
            if value is None and name == "seed":
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and allowed(value) and (kind is float or isinstance(value, int) or value.is_integer())):
                raise RequestError(f"{name} {value} is not allowed: it must be {right}")
        self._keep("logit_bias", _pairs(self.logit_bias))
        self._keep("bad_words", _sequences(self.bad_words))

    def _keep(self, name: str, value) -> None:
        object.__setattr__(self, name, value)  # frozen: for everyone else

    @property
    def greedy(self) -> bool:
        return self.temperature < COLDEST

    @property
    def penalizes(self) -> bool:
        """Whether the text so far changes anything."""
        return bool(
            self.logit_bias or self.bad_words or self.min_tokens or self.repetition_penalty != 1
            or self.presence_penalty or self.frequency_penalty
        )


def _pairs(bias) -> tuple[tuple[int | str, float], ...]:
    try:
        pairs = tuple(dict(bias).items())
    except (TypeError, ValueError):
        raise RequestError("logit_bias is not allowed: it must be {token: number}") from None
    for token, value in pairs:
        if not isinstance(value, (int, float)) or not (math.isfinite(value) or value == -math.inf):
            raise RequestError(f"logit_bias {value} for {token!r} is not allowed: it must be a number (-inf: never)")
    return pairs


def _sequences(words) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(words, str):
        words = (words,)
    try:
        found = tuple(word if isinstance(word, str) else tuple(int(i) for i in word) for word in words)
    except (TypeError, ValueError):
        raise RequestError("bad_words is not allowed: it must be texts, or lists of token ids") from None
    if "" in found or () in found:
        raise RequestError("a bad word is empty: it would forbid every text")
    return found


GREEDY = Sampling(temperature=0.0)


def sample(
    logits: Tensor, sampling: Sampling | Sequence[Sampling],
    generator: torch.Generator | Sequence[torch.Generator | None] | None = None,
) -> Tensor:
    """`logits` (B, V) float32, -inf where a token must not be chosen → ids (B,) int64.

    `sampling`: one for all rows or one for each. What the text so far changes is for the caller to apply before
    (`penalties.penalize`). `generator`: CPU generators, one for each row or one for all; a row takes one uniform number
    from it, so with one each a row's choices do not depend on its neighbours. Raises WorkError when logits are not
    finite.
    """
    check(logits)
    settings = [sampling] * len(logits) if isinstance(sampling, Sampling) else list(sampling)
    drawn = [i for i, s in enumerate(settings) if not s.greedy]
    ids = best(logits)
    if not drawn:
        return ids
    if isinstance(generator, torch.Generator) or generator is None:
        u = torch.rand(len(drawn), 1, dtype=torch.float64, generator=generator)
    else:
        u = torch.cat([torch.rand(1, 1, dtype=torch.float64, generator=generator[i]) for i in drawn])
    rows = torch.tensor(drawn, device=logits.device)
    p = probabilities(logits if len(drawn) == len(logits) else logits[rows], [settings[i] for i in drawn])
    ids[rows] = inverse(p, u.to(p.device))
    return ids


def best(logits: Tensor) -> Tensor:
    """The likeliest token of each row of (B, V), the first of equals."""
    if logits.device.type != "cpu":
        return logits.argmax(-1)
    return torch.from_numpy(logits.numpy().argmax(-1))  # a tenth of the time of PyTorch's


def inverse(p: Tensor, u: Tensor) -> Tensor:
    """The first token of each row of `p` (B, V) whose cumulative share of the row's sum exceeds `u` (B, 1) float64; never
    one of probability 0. Sums are float64, of blocks of tokens first, then within the block that it is in."""
    V = p.shape[-1]
    blocks = F.pad(p, (0, -V % BLOCK)).unflatten(-1, (-1, BLOCK))  # (B, V / BLOCK, BLOCK)
    cumulative = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    total = cumulative[:, -1:]
    wanted = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    block = torch.searchsorted(cumulative, wanted, right=True)  # (B, 1)
    before = torch.where(block > 0, cumulative.gather(-1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks[torch.arange(len(p), device=p.device), block[:, 0]]  # (B, BLOCK)
    place = torch.searchsorted(before + inside.cumsum(-1, dtype=torch.float64), wanted, right=True)
    last = BLOCK - 1 - (inside > 0).flip(-1).byte().argmax(-1, keepdim=True)  # where rounding leads beyond all of them
    return (block * BLOCK + torch.minimum(place, last)).squeeze(-1)


def check(logits: Tensor) -> None:
    if not logits.amax(-1).isfinite().all():  # amax hands NaN on
        raise WorkError("the model gives logits that are not finite: its weights are damaged or its training diverged")


def probabilities(logits: Tensor, sampling: Sampling | Sequence[Sampling]) -> Tensor:
    """`logits` (B, V) float32 → (B, V) float32: what `sample` draws from. Not for a greedy choice."""
    *_, (_, p) = stages(logits, [sampling] * len(logits) if isinstance(sampling, Sampling) else sampling)
    return p


def stages(logits: Tensor, settings: Sequence[Sampling]) -> Iterator[tuple[str, Tensor]]:
    """The distribution (B, V) after the temperature, then after each cut that one of the rows asks for, by name."""
    def column(name: str) -> Tensor:  # (B, 1)
        return torch.tensor([[getattr(s, name)] for s in settings], device=logits.device)

    # shifted before the division, so that a small temperature gives the greedy choice and not inf - inf
    scores = (logits - logits.amax(-1, keepdim=True)) / column("temperature").to(logits.dtype)
    p = scores.softmax(-1)
    yield "temperature", p
    for name, (cut, off) in CUTS.items():
        if any(getattr(s, name) != off for s in settings):
            values = column(name)
            scores = scores.masked_fill(~(cut(scores, p, values) | (values == off)), -math.inf)
            p = scores.softmax(-1)
            yield name, p


def likeliest(log_probs: Tensor, n: int) -> list[list[tuple[int, float]]]:
    """The n likeliest tokens of each row of (B, V), best first."""
    if not n:
        return []
    values, ids = log_probs.topk(min(n, log_probs.shape[-1]), dim=-1)
    return [list(zip(i, v)) for i, v in zip(ids.tolist(), values.tolist())]


# Each cut: scores (B, V), their probabilities (B, V), a setting for each row (B, 1) → what stays (B, V) bool.


def _top_k(scores: Tensor, p: Tensor, k: Tensor) -> Tensor:
    k = k.long().clamp(max=scores.shape[-1])
    best = scores.topk(int(k.max()), dim=-1).values
    return scores >= best.gather(-1, (k - 1).clamp(min=0))


FIRST = 256  # candidates that nearly always reach top-p; a full sort of 49,152 costs 20 times as much


def _top_p(scores: Tensor, p: Tensor, limit: Tensor) -> Tensor:
    kept = torch.zeros_like(p, dtype=torch.bool)
    ordered, index = p.topk(min(FIRST, p.shape[-1]), dim=-1)
    kept.scatter_(-1, index, _before(ordered) < limit)
    short = ((ordered.sum(-1, keepdim=True) < limit) & (limit < 1)).squeeze(-1)  # rows that the first do not decide
    if short.any():
        ordered, index = p[short].sort(dim=-1, descending=True)
        kept[short] = torch.zeros_like(kept[short]).scatter_(-1, index, _before(ordered) < limit[short])
    return kept


def _before(ordered: Tensor) -> Tensor:
    """The probability of all before each."""
    return ordered.cumsum(-1) - ordered


def _min_p(scores: Tensor, p: Tensor, share: Tensor) -> Tensor:
    return p >= share * p.amax(-1, keepdim=True)


def _typical(scores: Tensor, p: Tensor, mass: Tensor) -> Tensor:
    surprise = -scores.log_softmax(-1)
    entropy = (p * surprise).nansum(-1, keepdim=True)
    distance, index = (surprise - entropy).abs().sort(dim=-1)
    reached = (p.gather(-1, index).cumsum(-1) < mass).sum(-1, keepdim=True).clamp(max=p.shape[-1] - 1)
    return (surprise - entropy).abs() <= distance.gather(-1, reached)


CUTS = {"top_k": (_top_k, 0), "top_p": (_top_p, 1.0), "min_p": (_min_p, 0.0), "typical": (_typical, 1.0)}
