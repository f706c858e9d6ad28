"""Text from a model: token after token, drawn by the sampler (`_run`), or the best of several texts (`beam.py`).

Both go over a `Stepper`, which is what the kinds of model do differently.
"""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from ..errors import RequestError
from ..model.encoder import Encoder
from ..model.encoder_decoder import EncoderDecoder
from ..model.transformer import Transformer
from . import words
from .beam import Beams, search
from .penalties import penalize
from .prompt import BOUNDLESS, end_ids, positions, prompt_ids, start_ids
from .sampler import Sampling, likeliest, sample
from .stepper import NO_WRITER, Stepper, stepper
from .text_stream import TextStream
from .window import Window


@dataclass
class Generation:
    """What followed a prompt.

    `ids` are the generated tokens, `text` what they say, without an end token or a stop string. `log_probs`: natural
    log-probability of each id under the model itself, before penalties, temperature and cuts; `top_log_probs`, where
    asked for: the likeliest tokens of each place, as (id, log-probability). `finish_reason`: "stop" (an end token or a
    stop string) or "length" (`max_tokens`, or the end of the model's context). `score`: of a beam, see `beam.Beams`.
    """

    prompt: str
    text: str = ""
    ids: list[int] = field(default_factory=list)
    finish_reason: str = "length"
    log_probs: list[float] = field(default_factory=list)
    top_log_probs: list[list[tuple[int, float]]] = field(default_factory=list)
    score: float | None = None


@torch.no_grad()
def generate(
    model: Transformer, tokenizer, prompts: str | Sequence[str | list[int]], *, max_tokens: int = 128,
    sampling: Sampling = Sampling(), n: int = 1, beams: Beams | None = None, stop: str | Sequence[str] = (),
    stop_tokens: Sequence[int | str] = (), window: Window | None = None, top_log_probs: int = 0,
    on_text: Callable[[int, str], None] | None = None, batch: int = 32, make_stepper: Callable[..., Stepper] = stepper,
) -> list[Generation]:
    """Continue each prompt by up to `max_tokens` tokens; with an encoder-decoder, write what it makes of each source.

    A prompt is text, which gets around it what the tokenizer puts there, or a list of ids, taken as it is. There are
    `n` results a prompt, side by side: draws, or with `beams` the n best. A text ends at an end token, at one of
    `stop_tokens` (ids, or each the text of one token), or before a string of `stop`. `on_text(i, piece)` is called with
    new text of result `i` as it comes. `batch` results are written at a time (prompts, with beams).
    With a `window`, a decoder's text may be longer than its context: the oldest tokens go. `make_stepper`: who
    computes, where it is not the usual one (`stepper.stepper`).
    With a seed, the text of a prompt is the same again, in whatever company (the same prompt given twice gets two
    draws, as `n=2` does). Raises RequestError for a prompt that is empty, unknown to the model, or fills its context.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    stop_tokens = (stop_tokens,) if isinstance(stop_tokens, (int, str)) else stop_tokens
    _check(model, max_tokens, n, beams, window, stop, top_log_probs)
    sampling = words.resolve(sampling, tokenizer)
    ends = end_ids(model, tokenizer, stop_tokens)
    start = start_ids(model, tokenizer) if isinstance(model, EncoderDecoder) else []
    ids = [prompt_ids(model, tokenizer, prompt, bounded=not window) for prompt in prompts]
    ids = [row for row in ids for _ in range(n)]
    texts = [p if isinstance(p, str) else tokenizer.decode(p) for p in prompts for _ in range(n)]
    room = BOUNDLESS if window else positions(model.config)
    rows = [
        _Row(i, row, Generation(text), generator, min(max_tokens, room - len(start or row)),
             TextStream(tokenizer, [] if start else row, stop))
        for i, (row, text, generator) in enumerate(zip(ids, texts, generators(ids, sampling)))
    ]
    work = _Work(
        model, tokenizer, sampling, ends, start, stop, max_tokens, window, top_log_probs, on_text, make_stepper
    )
    # neighbours of like length waste little padding; the results of one prompt stay together
    order = sorted(rows, key=lambda row: len(row.prompt_ids))
    batch = batch * n if beams else batch
    training = model.training
    model.eval()
    try:
        for at in range(0, len(order), batch):
            if beams:
                _search(work, order[at : at + batch], n, beams)
            else:
                _run(work, order[at : at + batch])
    finally:
        model.train(training)
    return [row.result for row in rows]


@dataclass
class _Row:
    """One text on its way. `limit`: it has at most so many tokens."""

    index: int
    prompt_ids: list[int]
    result: Generation
    generator: torch.Generator
    limit: int
    stream: TextStream
    done: bool = False


@dataclass(frozen=True)
class _Work:
    """What is the same for all texts of a call."""

    model: Transformer
    tokenizer: object
    sampling: Sampling
    ends: frozenset[int]
    start: list[int]
    stop: tuple[str, ...]
    max_tokens: int
    window: Window | None
    top: int
    on_text: Callable[[int, str], None] | None
    make_stepper: Callable[..., Stepper]


def _run(work: _Work, rows: list[_Row]) -> None:
    """Fill the rows' results, token by token."""
    prompts, which = _distinct(row.prompt_ids for row in rows)
    steps = work.make_stepper(work.model, prompts, work.max_tokens, work.start, work.window)
    logits = steps.prefill()  # each prompt once, however many texts go on from it
    if len(prompts) < len(rows):
        which = torch.tensor(which, device=logits.device)
        steps.select(which)
        logits = logits[which]
    while True:
        logits[:, work.tokenizer.vocab_size :] = -torch.inf  # rows of the table that no text stands for
        settings, written = [work.sampling] * len(rows), [row.result.ids for row in rows]
        changed = penalize(logits, settings, steps.starts, written, work.ends)
        ids = sample(changed, settings, [row.generator for row in rows])
        log_probs = logits.log_softmax(-1)
        chosen = log_probs.gather(-1, ids[:, None])[:, 0].tolist()
        best = likeliest(log_probs, work.top)
        for i, (row, token) in enumerate(zip(rows, ids.tolist())):
            if not row.done:
                row.result.ids.append(token)
                row.result.log_probs.append(chosen[i])
                if work.top:
                    row.result.top_log_probs.append(best[i])
                _advance(work, row, token)
        live = [i for i, row in enumerate(rows) if not row.done]
        if not live:
            return
        if len(live) <= len(rows) // 2:  # halving costs one copy of the cache and saves half of every later step
            keep = torch.tensor(live, device=ids.device)
            rows, ids = [rows[i] for i in live], ids[keep]
            steps.select(keep)
        logits = steps.step(ids)


def _advance(work: _Work, row: _Row, token: int) -> None:
    """Take the token that was just chosen into the row's text."""
    result = row.result
    if token in work.ends:
        result.finish_reason, row.done = "stop", True
        piece = row.stream.finish()
    else:
        piece = row.stream.push(token)
        if not row.stream.stopped and len(result.ids) >= row.limit:
            row.done = True
            piece += row.stream.finish()
        if row.stream.stopped:
            result.finish_reason, row.done = "stop", True
    result.text = row.stream.text
    if work.on_text and piece:
        work.on_text(row.index, piece)


def _search(work: _Work, rows: list[_Row], n: int, beams: Beams) -> None:
    """Fill the rows' results, `n` side by side for each prompt, with the best that a beam search finds."""
    first = rows[::n]
    found = search(
        work.make_stepper(work.model, [row.prompt_ids for row in first], work.max_tokens, work.start), beams,
        [row.limit for row in first], work.sampling, work.ends, work.tokenizer, work.stop, work.top,
    )
    for i, hypotheses in enumerate(found):
        for row, best in zip(rows[i * n :], hypotheses[:n]):
            for token in best.ids:
                row.result.ids.append(token)
                _advance(work, row, token)
            row.result.log_probs, row.result.top_log_probs = best.log_probs, best.top
            row.result.score = best.score


def _distinct(prompts) -> tuple[list[list[int]], list[int]]:
    """Each different prompt once, and for each prompt which of them it is."""
    places: dict[tuple, int] = {}
    which = [places.setdefault(tuple(ids), len(places)) for ids in prompts]
    return [list(ids) for ids in places], which


def _check(
    model, max_tokens: int, n: int, beams: Beams | None, window: Window | None, stop: tuple[str, ...],
    top_log_probs: int,
) -> None:
    if isinstance(model, Encoder):
        raise RequestError(NO_WRITER)
    if max_tokens < 1:
        raise RequestError(f"max_tokens {max_tokens} is not allowed: it must be at least 1")
    if n < 1:
        raise RequestError(f"n {n} is not allowed: it must be at least 1")
    if beams and n > beams.width:
        raise RequestError(f"n {n} is more than the {beams.width} beams: a search ends with at most one text a beam")
    if beams and window:
        raise RequestError("beams and a window contradict each other: a search keeps all of its texts; leave one out")
    if "" in stop:
        raise RequestError("a stop string is empty: it would end every text before it began")
    if not 0 <= top_log_probs <= 100:
        raise RequestError(f"top_log_probs {top_log_probs} is not allowed: it must be from 0 to 100")


def generators(ids: list[list[int]], sampling: Sampling) -> list[torch.Generator]:
    """A stream of random numbers for each text, by the seed, the prompt, and how often it came before."""
    seed = secrets.randbits(62) if sampling.seed is None else sampling.seed
    counts: dict[tuple, int] = {}
    generators = []
    for prompt in ids:
        key = tuple(prompt)
        counts[key] = counts.get(key, 0) + 1
        digest = hashlib.blake2b(repr((seed, counts[key], prompt)).encode(), digest_size=8).digest()
        generators.append(torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1))
    return generators
