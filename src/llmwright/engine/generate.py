"""Text from a model: the prompt once through it (prefill), then one position a step, with keys and values kept.

Prompts of unequal length share a batch: shorter ones are padded on the left, where a mask hides the padding, and each
row counts its own positions, so a prompt's text does not depend on its neighbours.
"""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from ..errors import RequestError
from ..model.cache import KVCache
from ..model.decoder import Decoder
from .sampler import Sampling, sample
from .text_stream import TextStream


@dataclass
class Generation:
    """What followed a prompt.

    `ids` are the generated tokens, `text` what they say, without an end token or a stop string. `log_probs`: natural
    log-probability of each id under the model itself, before temperature and cuts. `finish_reason`: "stop" (an end
    token or a stop string) or "length" (`max_tokens`, or the end of the model's context).
    """

    prompt: str
    text: str = ""
    ids: list[int] = field(default_factory=list)
    finish_reason: str = "length"
    log_probs: list[float] = field(default_factory=list)


@torch.no_grad()
def generate(
    model: Decoder, tokenizer, prompts: str | Sequence[str | list[int]], *, max_tokens: int = 128,
    sampling: Sampling = Sampling(), stop: str | Sequence[str] = (), on_text: Callable[[int, str], None] | None = None,
    batch: int = 32,
) -> list[Generation]:
    """Continue each prompt by up to `max_tokens` tokens.

    A prompt is text, which gets the tokenizer's beginning-of-text token before it where there is one, or a list of
    ids, taken as it is. `on_text(i, piece)` is called with new text of prompt `i` as it comes. `batch` prompts run
    at a time. With a seed, the text of a prompt is the same again, in whatever company (the same prompt given twice
    gets two draws). Raises RequestError for a prompt that is empty, unknown to the model, or fills its context.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    if max_tokens < 1:
        raise RequestError(f"max_tokens {max_tokens} is not allowed: it must be at least 1")
    if "" in stop:
        raise RequestError("a stop string is empty: it would end every text before it began")
    ids = [_prompt_ids(model, tokenizer, prompt) for prompt in prompts]
    generators = _generators(ids, sampling)
    results = [Generation(p if isinstance(p, str) else tokenizer.decode(p)) for p in prompts]
    # neighbours of like length waste little padding
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    training = model.training
    model.eval()
    try:
        for at in range(0, len(order), batch):
            rows = [
                _Row(i, ids[i], results[i], generators[i], TextStream(tokenizer, ids[i], stop))
                for i in order[at : at + batch]
            ]
            _run(model, tokenizer, rows, max_tokens, sampling, on_text)
    finally:
        model.train(training)
    return results


@dataclass
class _Row:
    """One prompt on its way."""

    index: int
    prompt_ids: list[int]
    result: Generation
    generator: torch.Generator
    stream: TextStream
    done: bool = False


def _run(model: Decoder, tokenizer, rows: list[_Row], max_tokens: int, sampling: Sampling, on_text) -> None:
    """Fill the rows' results."""
    device, longest = model.device, max(len(row.prompt_ids) for row in rows)
    shortest = min(len(row.prompt_ids) for row in rows)
    capacity = longest + min(max_tokens, model.config.context - shortest) - 1  # the last token is never fed
    cache = KVCache(model.config, len(rows), capacity, dtype=model.dtype, device=device)
    padding = torch.tensor([longest - len(row.prompt_ids) for row in rows], device=device)[:, None]  # (B, 1)
    padded = bool(padding.any())
    # padding holds the row's own first id: any known token will do, the mask hides it
    input_ids = torch.tensor(
        [[row.prompt_ids[0]] * (longest - len(row.prompt_ids)) + row.prompt_ids for row in rows], device=device
    )
    place = torch.arange(longest, device=device)[None]  # (1, T)
    positions = (place - padding).clamp(min=0)  # (B, T)
    seen = place >= padding  # (B, S)
    mask = None
    if padded:  # a padded place sees itself, so that no softmax is empty
        mask = (seen[:, None, :] | torch.eye(longest, dtype=torch.bool, device=device))[:, None]  # (B, 1, T, S)
    hidden = model.hidden(input_ids, positions=positions, mask=mask, cache=cache)
    while True:
        logits = model.logits(hidden[:, -1])  # (B, V)
        logits[:, tokenizer.vocab_size :] = -torch.inf  # rows of the table that no text stands for
        ids = sample(logits, sampling, [row.generator for row in rows])
        log_probs = logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        for row, token, log_prob in zip(rows, ids.tolist(), log_probs.tolist()):
            if not row.done:
                _advance(model, tokenizer, row, token, log_prob, max_tokens, on_text)
        live = [i for i, row in enumerate(rows) if not row.done]
        if not live:
            return
        positions = positions[:, -1:] + 1
        if len(live) <= len(rows) // 2:  # halving costs one copy of the cache and saves half of every later step
            keep = torch.tensor(live, device=device)
            rows, ids, positions, padding = [rows[i] for i in live], ids[keep], positions[keep], padding[keep]
            cache.select(keep)
        mask = None
        if padded:
            mask = (torch.arange(cache.length + 1, device=device)[None] >= padding)[:, None, None]  # (B, 1, 1, S)
        # a finished row goes on unseen; it stays inside the context's positions
        hidden = model.hidden(
            ids[:, None], positions=positions.clamp(max=model.config.context - 1), mask=mask, cache=cache
        )


def _advance(model, tokenizer, row: _Row, token: int, log_prob: float, max_tokens: int, on_text) -> None:
    """Take one token into the row's result."""
    result = row.result
    result.ids.append(token)
    result.log_probs.append(log_prob)
    if token in (tokenizer.eos_id, model.config.special("eos")):
        result.finish_reason, row.done = "stop", True
        piece = row.stream.finish()
    else:
        piece = row.stream.push(token)
        full = len(row.prompt_ids) + len(result.ids) >= model.config.context
        if not row.stream.stopped and (full or len(result.ids) >= max_tokens):
            row.done = True
            piece += row.stream.finish()
        if row.stream.stopped:
            result.finish_reason, row.done = "stop", True
    result.text = row.stream.text
    if on_text and piece:
        on_text(row.index, piece)


def _prompt_ids(model: Decoder, tokenizer, prompt: str | list[int]) -> list[int]:
    if isinstance(prompt, str):
        begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        ids = begin + [int(i) for i in tokenizer.encode(prompt)]
    else:
        ids = [int(i) for i in prompt]
    context, vocab_size = model.config.context, model.config.vocab_size
    if not ids:
        raise RequestError("the prompt is empty, and this tokenizer has no beginning-of-text token: give some text")
    if not all(0 <= i < vocab_size for i in ids):
        raise RequestError(
            f"the prompt holds the token id {max(ids)}, but the model's vocabulary has {vocab_size}: the tokenizer is "
            "not this model's"
        )
    if len(ids) >= context:
        raise RequestError(
            f"the prompt has {len(ids):,} tokens and the model's context {context:,}, with no room for another: "
            f"shorten it to {context - 1:,} tokens, keep only its end, or use a model with a longer context"
        )
    return ids


def _generators(ids: list[list[int]], sampling: Sampling) -> list[torch.Generator]:
    """A stream of random numbers for each prompt, by the seed, the prompt, and how often it came before."""
    seed = secrets.randbits(62) if sampling.seed is None else sampling.seed
    counts: dict[tuple, int] = {}
    generators = []
    for prompt in ids:
        key = tuple(prompt)
        counts[key] = counts.get(key, 0) + 1
        digest = hashlib.blake2b(repr((seed, counts[key], prompt)).encode(), digest_size=8).digest()
        generators.append(torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1))
    return generators
