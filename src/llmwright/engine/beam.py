"""Beam search: instead of one text, the `width` likeliest beginnings go on together, and the best finished text wins
(Sutskever, Vinyals & Le 2014, section 3.2).

A text's score is its log-probability over length ** length_penalty, the end token counted. That, the candidates and the
rule for stopping are transformers' own, so that results agree; Wu et al. 2016 (equation 14) divide by
((5 + length) / 6) ** alpha instead, which differs for short texts.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import RequestError
from .penalties import penalize
from .row import Row
from .sampler import Sampling, check, likeliest
from .stepper import Stepper


@dataclass(frozen=True)
class Beams:
    """`width` texts go on at a time. `length_penalty` above 0 favours long texts, below 0 short ones; 0: the plain
    log-probability. A search is over, by `early_stopping`:

    - False: once no text that goes on scores higher, at its present length, than the worst of `width` finished ones;
    - True: once `width` texts are finished;
    - "never": as False, but a text that goes on counts as long as it may become.

    Raises RequestError for a value out of range.
    """

    width: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | str = False

    def __post_init__(self):
        if type(self.width) is not int or not 1 <= self.width <= 1000:
            raise RequestError(f"beams {self.width} is not allowed: it must be a whole number from 1 to 1000")
        if not isinstance(self.length_penalty, (int, float)) or not abs(self.length_penalty) <= 50:
            raise RequestError(f"length_penalty {self.length_penalty} is not allowed: it must be a number from -50 to 50")
        if self.early_stopping not in (False, True, "never"):
            raise RequestError(f"early_stopping {self.early_stopping!r} is not allowed: it is true, false or never")


@dataclass(frozen=True)
class Hypothesis:
    """A text, or the beginning of one. `total`: the sum of what its tokens scored, penalties included; `log_probs`:
    what each token had under the model itself; `score`: of a finished one, total / length ** length_penalty."""

    ids: list[int] = field(default_factory=list)
    total: float = 0.0
    log_probs: list[float] = field(default_factory=list)
    top: list[list[tuple[int, float]]] = field(default_factory=list)
    score: float = -math.inf


@dataclass(frozen=True)
class Rules:
    """What a search goes by. Of `sampling` the penalties count, on log-probabilities. `ends`: tokens that finish a text,
    `stop`: strings that do. `top`: so many of the likeliest tokens of each place are told."""

    beams: Beams
    sampling: Sampling
    ends: frozenset[int]
    tokenizer: object
    stop: Sequence[str] = ()
    top: int = 0


@dataclass
class Search:
    """The search for one prompt, whose texts begin after `start` and have at most `limit` tokens.

    `running`: the beginnings that go on, one at first, then at most `width`; `finished`: the best texts; each best first.
    """

    rules: Rules
    start: Sequence[int]
    limit: int
    running: list[Hypothesis] = field(default_factory=lambda: [Hypothesis()])
    finished: list[Hypothesis] = field(default_factory=list)
    over: bool = False


def advance(searches: Sequence[Search], logits: Tensor) -> list[list[int]]:
    """Take searches with the same rules a token further.

    `logits` (B · w, V) float32: w rows for each search, first those of its `running` texts; the rest is not looked at.
    Returns for each search, of each text that is `running` now, the row among its w that it goes on from.
    """
    rules, w = searches[0].rules, len(logits) // len(searches)
    k, ends = rules.beams.width, rules.ends
    logits[:, rules.tokenizer.vocab_size :] = -torch.inf
    check(logits)
    log_probs = logits.log_softmax(-1)  # (B·w, V)
    rows = [h for search in searches for h in _padded(search.running, w)]
    starts = [search.start for search in searches for _ in range(w)]
    scored = penalize(log_probs, [rules.sampling] * len(rows), starts, [h.ids for h in rows], ends)
    totals = scored + torch.tensor([h.total for h in rows], device=scored.device)[:, None]
    V = totals.shape[-1]
    # enough candidates that k of them go on, even if each beam's likeliest tokens all end it
    n_candidates = min(max(2, 1 + len(ends)) * k, w * V)
    best, place = totals.view(len(searches), w * V).topk(n_candidates, dim=-1)  # (B, candidates)
    own = log_probs.view(len(searches), w * V).gather(-1, place).tolist()
    best, place = best.tolist(), place.tolist()
    alternatives = likeliest(log_probs, rules.top)
    parents = []
    for i, search in enumerate(searches):
        if search.over:
            parents.append([])
            continue
        candidates = (
            (at // V, _longer(search.running[at // V], at % V, total, log_prob,
                              alternatives[i * w + at // V] if rules.top else None))
            for total, at, log_prob in zip(best[i], place[i], own[i]) if total > -math.inf
        )
        parents.append(_take(search, candidates))
    return parents


def search(steps: Stepper, rules: Rules, limits: Sequence[int]) -> list[list[Hypothesis]]:
    """For each prompt of `steps` its finished texts, at most `width`, best first. `limits`: how many tokens the texts of
    each prompt may have."""
    k, begun = rules.beams.width, False
    searches = everyone = [Search(rules, start, limit) for start, limit in zip(steps.starts, limits)]
    logits = steps.prefill()  # (B, V): all beams are the same at first, so one of them is enough
    while True:
        parents = advance(searches, logits)
        live = [i for i, each in enumerate(searches) if not each.over]
        if not live:
            return [each.finished for each in everyone]
        if begun:  # rows of a search that is over go on unseen until the batch is halved
            rows = [i * k + row for i, came_from in enumerate(parents) for row in _filled(came_from or [0], k)]
            steps.reorder(torch.tensor(rows, device=logits.device))
        else:
            steps.widen(k)
            begun = True
        if len(live) <= len(searches) // 2:  # as in `generate`: one copy, half of the work saved
            rows = [i * k + beam for i in live for beam in range(k)]
            steps.select(torch.tensor(rows, device=logits.device))
            searches = [searches[i] for i in live]
        tokens = [h.ids[-1] if h.ids else 0 for each in searches for h in _filled(each.running, k)]
        logits = steps.step(torch.tensor(tokens, device=logits.device))


def write(row: Row, best: Hypothesis) -> str:
    """What was found becomes the row's result. Returns its text."""
    pieces = [row.advance(token) for token in best.ids]
    row.result.log_probs, row.result.top_log_probs, row.result.score = best.log_probs, best.top, best.score
    return "".join(pieces)


def _filled(some: list, n: int) -> list:
    """`n` of them, the first one again where there are fewer."""
    return some + some[:1] * (n - len(some))


def _padded(running: list[Hypothesis], n: int) -> list[Hypothesis]:
    """As many as there are rows; nothing goes on from those that are added."""
    return running + [replace(running[0], total=-math.inf)] * (n - len(running))


def _longer(h: Hypothesis, token: int, total: float, log_prob: float, top) -> Hypothesis:
    return Hypothesis([*h.ids, token], total, [*h.log_probs, log_prob], [*h.top, top] if top else [])


def _ends(h: Hypothesis, rules: Rules) -> bool:
    if h.ids[-1] in rules.ends:
        return True
    text = rules.tokenizer.decode(h.ids) if rules.stop else ""
    return any(s in text for s in rules.stop)


def _take(search: Search, candidates: Iterator[tuple[int, Hypothesis]]) -> list[int]:
    """Sort `candidates`, (row they come from, hypothesis) best first, into finished texts and those that go on, and say
    whether the search is over. Returns the rows that go on."""
    beams, length = search.rules.beams, len(search.running[0].ids) + 1
    k = beams.width
    kept: list[tuple[int, Hypothesis]] = []
    for rank, (row, h) in enumerate(candidates):
        if length >= search.limit or _ends(h, search.rules):
            if rank < k:  # those behind are only there so that enough go on
                search.finished.append(replace(h, score=h.total / length**beams.length_penalty))
        elif len(kept) < k:
            kept.append((row, h))
        if len(kept) == k and rank >= k - 1:
            break
    search.finished = sorted(search.finished, key=lambda h: -h.score)[:k]
    search.over = not kept or _settled(search, kept[0][1].total, length)
    if kept:
        search.running = [h for _, h in kept]
    return [row for row, _ in kept]


def _settled(search: Search, best: float, length: int) -> bool:
    """Whether what goes on, of which the likeliest has the log-probability `best`, cannot win any more."""
    beams = search.rules.beams
    if len(search.finished) < beams.width:
        return False
    if beams.early_stopping is True:
        return True
    if beams.early_stopping == "never" and beams.length_penalty > 0:
        length = search.limit
    return best / length**beams.length_penalty <= search.finished[-1].score
