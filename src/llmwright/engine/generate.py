"""Text from a model: token after token, drawn by the sampler (`_run`), or the best of several texts (`beam.py`).

Both go over a `Stepper`, which is what the kinds of model do differently.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from ..errors import RequestError
from ..model.encoder import Encoder
from ..model.encoder_decoder import EncoderDecoder
from ..model.transformer import Transformer
from . import words
from .beam import Beams, Rules, search, write
from .prompt import BOUNDLESS, end_ids, positions, prompt_ids, start_ids
from .row import Generation, Row, choose
from .sampler import Sampling
from .stepper import NO_WRITER, Stepper, stepper
from .text_stream import TextStream
from .window import Window


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
    prompts = [prompts] if isinstance(prompts, str) else list(prompts) if isinstance(prompts, Iterable) else [prompts]
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    stop_tokens = (stop_tokens,) if isinstance(stop_tokens, (int, str)) else stop_tokens
    _check(model, max_tokens, n, batch, beams, window, stop, top_log_probs)
    sampling = words.resolve(sampling, tokenizer)
    ends = end_ids(model, tokenizer, stop_tokens)
    start = start_ids(model, tokenizer) if isinstance(model, EncoderDecoder) else []
    ids = [prompt_ids(model, tokenizer, prompt, bounded=not window) for prompt in prompts]
    ids = [row for row in ids for _ in range(n)]
    texts = [p if isinstance(p, str) else tokenizer.decode(p) for p in prompts for _ in range(n)]
    room = BOUNDLESS if window else positions(model.config)
    rows = [
        Row(Generation(text), start or row, sampling, generator, min(max_tokens, room - len(start or row)), ends,
            TextStream(tokenizer, [] if start else row, stop), top_log_probs)
        for row, text, generator in zip(ids, texts, generators(ids, sampling))
    ]
    places = {id(row): i for i, row in enumerate(rows)}

    def tell(row: Row, piece: str) -> None:
        if on_text and piece:
            on_text(places[id(row)], piece)

    work = _Work(model, tokenizer, start, max_tokens, window, make_stepper, tell)
    # neighbours of like length waste little padding; the results of one prompt stay together
    order = sorted(range(len(rows)), key=lambda i: len(ids[i]))
    batch = n if model.steady else batch * n if beams else batch  # steady: prompts of one length only
    training = model.training
    model.eval()
    try:
        for at in range(0, len(order), batch):
            some = order[at : at + batch]
            if beams:
                _search(work, [rows[i] for i in some], [ids[i] for i in some[::n]], n, beams, stop)
            else:
                _run(work, [rows[i] for i in some], [ids[i] for i in some])
    finally:
        model.train(training)
    return [row.result for row in rows]


@dataclass(frozen=True)
class _Work:
    """What is the same for all texts of a call."""

    model: Transformer
    tokenizer: object
    start: list[int]
    max_tokens: int
    window: Window | None
    make_stepper: Callable[..., Stepper]
    tell: Callable[[Row, str], None]


def _run(work: _Work, rows: list[Row], prompts: list[list[int]]) -> None:
    """Fill the rows' results, token by token."""
    prompts, which = _distinct(prompts)
    steps = work.make_stepper(work.model, prompts, work.max_tokens, work.start, work.window)
    logits = steps.prefill()  # each prompt once, however many texts go on from it
    if len(prompts) < len(rows):
        which = torch.tensor(which, device=logits.device)
        steps.select(which)
        logits = logits[which]
    while True:
        ids = choose(logits, rows, work.tokenizer.vocab_size)
        for row, token in zip(rows, ids):
            if not row.done:
                work.tell(row, row.advance(token))
        live = [i for i, row in enumerate(rows) if not row.done]
        if not live:
            return
        if len(live) <= len(rows) // 2:  # halving costs one copy of the cache and saves half of every later step
            rows, ids = [rows[i] for i in live], [ids[i] for i in live]
            steps.select(torch.tensor(live, device=logits.device))
        logits = steps.step(torch.tensor(ids, device=logits.device))


def _search(
    work: _Work, rows: list[Row], prompts: list[list[int]], n: int, beams: Beams, stop: tuple[str, ...]
) -> None:
    """Fill the rows' results, `n` side by side for each prompt, with the best that a beam search finds."""
    first = rows[0]
    rules = Rules(beams, first.sampling, first.ends, work.tokenizer, stop, first.top)
    steps = work.make_stepper(work.model, prompts, work.max_tokens, work.start)
    for i, hypotheses in enumerate(search(steps, rules, [row.limit for row in rows[::n]])):
        for row, best in zip(rows[i * n :], hypotheses[:n]):
            work.tell(row, write(row, best))


def _distinct(prompts) -> tuple[list[list[int]], list[int]]:
    """Each different prompt once, and for each prompt which of them it is."""
    places: dict[tuple, int] = {}
    which = [places.setdefault(tuple(ids), len(places)) for ids in prompts]
    return [list(ids) for ids in places], which


def _check(
    model, max_tokens: int, n: int, batch: int, beams: Beams | None, window: Window | None, stop: tuple[str, ...],
    top_log_probs: int,
) -> None:
    if isinstance(model, Encoder):
        raise RequestError(NO_WRITER)
    if type(max_tokens) is not int or max_tokens < 1:
        raise RequestError(f"max_tokens {max_tokens} is not allowed: it must be a whole number from 1 up")
    if n < 1:
        raise RequestError(f"n {n} is not allowed: it must be at least 1")
    if type(batch) is not int or batch < 1:
        raise RequestError(f"batch {batch} is not allowed: it must be a whole number from 1 up")
    if beams and n > beams.width:
        raise RequestError(f"n {n} is more than the {beams.width} beams: a search ends with at most one text a beam")
    if beams and window:
        raise RequestError("beams and a window contradict each other: a search keeps all of its texts; leave one out")
    if "" in stop:
        raise RequestError("a stop string is empty: it would end every text before it began")
    if not 0 <= top_log_probs <= 100:
        raise RequestError(f"top_log_probs {top_log_probs} is not allowed: it must be from 0 to 100")


def generators(
    ids: list[list[int]], sampling: Sampling, counts: dict[bytes, int] | None = None,
) -> list[torch.Generator]:
    """A stream of random numbers for each text, by the seed, the prompt, and how often it came before; `counts` keeps that
    from one call to the next."""
    seed = secrets.randbits(62) if sampling.seed is None else sampling.seed
    counts = {} if counts is None else counts
    generators = []
    for prompt in ids:
        key = hashlib.blake2b(repr(prompt).encode(), digest_size=16).digest()
        counts[key] = counts.get(key, 0) + 1
        digest = hashlib.blake2b(repr((seed, counts[key], prompt)).encode(), digest_size=8).digest()
        generators.append(torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1))
    return generators
