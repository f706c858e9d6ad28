"""What a model writes when it is given the beginning of a document, and how much of it parses."""

from collections.abc import Iterator

from . import python_source
from ..data.shards import Split
from ..engine.generate import Generation, generate
from ..engine.sampler import Sampling
from ..errors import RequestError
from ..model.decoder import Decoder
from ..progress import Progress

check_python = python_source.check_python


def completions(
    model: Decoder, tokenizer, prompts: list[str], *, max_tokens: int = 96, sampling: Sampling = Sampling(),
    batch: int = 32, progress: Progress = Progress(),
) -> list[Generation]:
    """A completion of each prompt, in order."""
    done: list[Generation] = []
    with progress.task("completions", len(prompts), "") as task:
        for at in range(0, len(prompts), batch):
            part = prompts[at : at + batch]
            done += generate(model, tokenizer, part, max_tokens=max_tokens, sampling=sampling)
            task.advance(len(part))
    return done


def python_share(
    model: Decoder, tokenizer, split: Split, *, n: int = 50, max_tokens: int = 96,
    sampling: Sampling = Sampling(temperature=0.8, top_p=0.95, seed=0), progress: Progress = Progress(),
) -> dict:
    """The share of `n` sampled completions that parse as Python, by the rule in `python_source`.

    Each prompt is the beginning of a document of `split`; documents without a fitting one are passed over. Returns
    parse_share; parse_share_of_text, the same for the true continuations: the ceiling; check_n, how many there were;
    and checked: [{prompt, text, parses}]. Raises RequestError when no document fits.
    """
    longest = model.config.context - max_tokens - 1
    if longest < 1:
        raise RequestError(
            f"max_tokens {max_tokens} leaves no room for a prompt in a context of {model.config.context}"
        )
    chosen: list[tuple[str, str]] = []
    for document in documents(tokenizer, split, 64 * max_tokens + 2000):
        if len(chosen) == n:
            break
        prompt = python_source.prompt(document)
        if prompt and len(tokenizer.encode(prompt)) <= longest:
            chosen.append((prompt, document[len(prompt) :]))
    if not chosen:
        raise RequestError(
            f"{split.directory}: no document begins with 200 characters of Python that leave room for {max_tokens} "
            f"tokens in the model's context of {model.config.context}: the share that parses cannot be measured"
        )
    written = completions(
        model, tokenizer, [p for p, _ in chosen], max_tokens=max_tokens, sampling=sampling, progress=progress
    )
    judged = [python_source.completion_parses(g.prompt, g.text, g.finish_reason == "stop") for g in written]
    ceiling = [python_source.completion_parses(p, *_cut(tokenizer, rest, max_tokens)) for p, rest in chosen]
    return {
        "parse_share": sum(judged) / len(judged),
        "parse_share_of_text": sum(ceiling) / len(ceiling),
        "check_n": len(judged),
        "checked": [{"prompt": g.prompt, "text": g.text, "parses": ok} for g, ok in zip(written, judged)],
    }


def _cut(tokenizer, rest: str, max_tokens: int) -> tuple[str, bool]:
    """What a model that writes exactly `rest` would have written, and whether it would have come to its end."""
    ids = tokenizer.encode(rest)
    return tokenizer.decode(ids[:max_tokens]), len(ids) < max_tokens


def documents(tokenizer, split: Split, most: int) -> Iterator[str]:
    """The first `most` characters or so of each document, in a fixed order that mixes sources and folders."""
    places = [(name, i) for name, source in split.sources.items() for i in range(source.n_documents)]
    step = next(prime for prime in (7919, 7907) if len(places) % prime)  # no common divisor: each comes once
    for k in range(len(places)):
        name, i = places[k * step % len(places)]
        yield tokenizer.decode(split.document(name, i)[:most])
