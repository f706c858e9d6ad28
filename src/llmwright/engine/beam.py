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

from ..errors import RequestError
from .penalties import penalize
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


@dataclass
class _Prompt:
    """The search for one prompt: `running` are `width` beginnings, `finished` the best texts, each best first."""

    index: int
    limit: int
    running: list[Hypothesis]
    finished: list[Hypothesis] = field(default_factory=list)
    over: bool = False


def search(
    steps: Stepper, beams: Beams, limits: Sequence[int], sampling: Sampling, ends: frozenset[int], tokenizer,
    stop: Sequence[str] = (), top: int = 0,
) -> list[list[Hypothesis]]:
    """For each prompt of `steps` its finished texts, at most `width`, best first.

    `limits`: how many tokens a prompt's texts may have. Of `sampling` the penalties count, on log-probabilities.
    `stop`: strings that finish a text.
    """
    k = beams.width
    logits = steps.prefill()
    steps.widen(k)
    logits = logits.repeat_interleave(k, dim=0)  # (B·k, V)
    # all beams are the same at first: one of them is enough
    prompts = [
        _Prompt(i, limit, [Hypothesis()] + [Hypothesis(total=-math.inf)] * (k - 1)) for i, limit in enumerate(limits)
    ]
    found: list[list[Hypothesis]] = [[] for _ in limits]
    # enough candidates that k of them go on, even if each beam's likeliest tokens all end it
    n_candidates = max(2, 1 + len(ends)) * k
    while True:
        logits[:, tokenizer.vocab_size :] = -torch.inf
        check(logits)
        log_probs = logits.log_softmax(-1)  # (B·k, V)
        alive = [h for prompt in prompts for h in prompt.running]
        scored = penalize(log_probs, [sampling] * len(alive), steps.starts, [h.ids for h in alive], ends)
        totals = scored + torch.tensor([h.total for h in alive], device=scored.device)[:, None]
        V = totals.shape[-1]
        best, place = totals.view(len(prompts), k * V).topk(min(n_candidates, k * V), dim=-1)  # (B, candidates)
        own = log_probs.view(len(prompts), k * V).gather(-1, place).tolist()
        best, place = best.tolist(), place.tolist()
        alternatives = likeliest(log_probs, top)
        parents, tokens = [], []  # of each row's next step: whom it goes on from, and with what
        for i, prompt in enumerate(prompts):
            if not prompt.over:
                candidates = (
                    (i * k + at // V, _longer(prompt.running[at // V], at % V, total, log_prob,
                                              alternatives[i * k + at // V] if top else None))
                    for total, at, log_prob in zip(best[i], place[i], own[i]) if total > -math.inf
                )
                came_from = _take(prompt, candidates, beams, lambda h: _ends(h, ends, tokenizer, stop))
            if prompt.over:  # its rows go on unseen until the batch is halved
                found[prompt.index], came_from = prompt.finished, range(i * k, i * k + k)
            parents += came_from
            tokens += [h.ids[-1] if h.ids else 0 for h in prompt.running]
        live = [i for i, prompt in enumerate(prompts) if not prompt.over]
        if not live:
            return found
        steps.reorder(torch.tensor(parents, device=logits.device))
        if len(live) <= len(prompts) // 2:  # as in `generate`: one copy, half of the work saved
            rows = [i * k + beam for i in live for beam in range(k)]
            steps.select(torch.tensor(rows, device=logits.device))
            prompts, tokens = [prompts[i] for i in live], [tokens[row] for row in rows]
        logits = steps.step(torch.tensor(tokens, device=logits.device))


def _longer(h: Hypothesis, token: int, total: float, log_prob: float, top) -> Hypothesis:
    return Hypothesis([*h.ids, token], total, [*h.log_probs, log_prob], [*h.top, top] if top else [])


def _ends(h: Hypothesis, ends: frozenset[int], tokenizer, stop: Sequence[str]) -> bool:
    if h.ids[-1] in ends:
        return True
    text = tokenizer.decode(h.ids) if stop else ""
    return any(s in text for s in stop)


def _take(prompt: _Prompt, candidates: Iterator[tuple[int, Hypothesis]], beams: Beams, ends) -> list[int]:
    """Sort `candidates`, (row they come from, hypothesis) best first, into finished texts and those that go on, and say
    whether the search is over. Returns the rows that go on."""
    k, length = beams.width, len(prompt.running[0].ids) + 1
    kept: list[tuple[int, Hypothesis]] = []
    for rank, (row, h) in enumerate(candidates):
        if length >= prompt.limit or ends(h):
            if rank < k:  # those behind are only there so that enough go on
                prompt.finished.append(replace(h, score=h.total / length**beams.length_penalty))
        elif len(kept) < k:
            kept.append((row, h))
        if len(kept) == k and rank >= k - 1:
            break
    prompt.finished = sorted(prompt.finished, key=lambda h: -h.score)[:k]
    prompt.over = not kept or _settled(prompt, kept[0][1].total, length, beams)
    if kept:
        kept += [(kept[0][0], replace(kept[0][1], total=-math.inf))] * (k - len(kept))
        prompt.running = [h for _, h in kept]
    return [row for row, _ in kept]


def _settled(prompt: _Prompt, best: float, length: int, beams: Beams) -> bool:
    """Whether what goes on, of which the likeliest has the log-probability `best`, cannot win any more."""
    if len(prompt.finished) < beams.width:
        return False
    if beams.early_stopping is True:
        return True
    if beams.early_stopping == "never" and beams.length_penalty > 0:
        length = prompt.limit
    return best / length**beams.length_penalty <= prompt.finished[-1].score
