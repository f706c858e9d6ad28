"""How well a model predicts text it never saw.

The measure is bits per byte: -log2 of the probability the model gives to the text, divided by the text's UTF-8 bytes.
It compares models whatever their tokenizers. A perplexity, exp(mean negative log-likelihood), moves with what is
counted, so each is named: per token, per word (runs of non-space), per byte (2 to the bits per byte).

Every token is scored exactly once. Without a stride, text is cut into windows of one context, the last token of one
being the first input of the next (the "rolling" definition of lm-eval). With a stride smaller than the context, each
window repeats the end of the one before as context and only its last `stride` targets count: better figures, more work
(Baevski & Auli 2019, section 5.4).
"""

import math
from collections.abc import Iterable, Iterator

import torch

from ..data.batch import Batch
from ..data.evaluation import evaluation_batches, evaluation_bytes
from ..data.shards import Split
from ..errors import RequestError, WorkError
from ..model.decoder import Decoder
from ..progress import Progress


@torch.no_grad()
def evaluate(
    model: Decoder, batches: Iterable[Batch], n_bytes: float | None, *, n_words: float | None = None,
    progress: Progress = Progress(), total: int | None = None,
) -> dict:
    """Score every valid target of `batches`.

    `n_bytes`, `n_words`: of the raw text that is scored. `total`: targets to come, for the progress bar. Returns loss
    (nats a token), bits_per_byte, perplexity_per_token, _per_word, _per_byte, tokens, bytes, words; what is not known
    is None. Losses are float32, their sum float64. Raises WorkError when the loss is not finite.
    """
    training = model.training
    model.eval()
    nats, tokens = 0.0, 0
    try:
        with progress.task("scoring", total, "tokens") as task:
            for batch in batches:
                batch = batch.to(model.device)
                hidden = model.hidden(batch.input_ids, positions=batch.positions, segments=batch.segments)
                loss = model.cross_entropy(hidden, batch.targets)
                nats += loss.item()
                tokens += batch.n_targets
                task.advance(batch.n_targets, loss=f"{nats / max(tokens, 1):.3f}")
    finally:
        model.train(training)
    if not tokens:
        raise RequestError("there is nothing to score: the text has no tokens")
    if not math.isfinite(nats):
        raise WorkError("the loss is not finite: the model's weights are damaged or its training diverged")
    return figures(nats, tokens, n_bytes, n_words)


def figures(nats: float, tokens: int, n_bytes: float | None, n_words: float | None = None) -> dict:
    """The measures of `nats`, the summed negative log-likelihood of text with so many tokens, bytes and words."""
    bits = nats / math.log(2) / n_bytes if n_bytes else None
    return {
        "loss": nats / tokens,
        "bits_per_byte": bits,
        "perplexity_per_token": _exp(nats / tokens),
        "perplexity_per_word": _exp(nats / n_words) if n_words else None,
        "perplexity_per_byte": _exp(nats / n_bytes) if n_bytes else None,
        "tokens": tokens,
        "bytes": n_bytes and round(n_bytes),
        "words": n_words and round(n_words),
    }


def _exp(x: float) -> float:
    """e to the x; inf beyond float64, which a damaged model's perplexity may be."""
    return math.exp(x) if x < 700 else math.inf


def evaluate_split(
    model: Decoder, tokenizer, split: Split, *, context: int | None = None, stride: int | None = None,
    max_tokens: int | None = None, batch: int = 16, progress: Progress = Progress(),
) -> dict:
    """A split of a data directory: all of it, or a fixed part of `max_tokens` spread over its documents (words are
    then not counted). The end of each document is a target too, as in training; its nats count, and it has no bytes."""
    context = _context(model, context, stride, batch)
    if tokenizer.vocab_size != split.vocab_size:
        raise RequestError(
            f"{split.directory}: prepared with a vocabulary of {split.vocab_size}; this model's tokenizer has "
            f"{tokenizer.vocab_size}. Score its text instead: llmwright eval MODEL --text FILE"
        )
    batches = evaluation_batches(split, context, batch, max_tokens, stride)
    whole = max_tokens is None or max_tokens >= split.n_tokens
    n_bytes = evaluation_bytes(split, max_tokens)
    if not whole and tokenizer.byte_level:  # exact: the bytes of the very tokens that are scored
        n_bytes = scored_bytes(tokenizer, evaluation_batches(split, context, batch, max_tokens, stride))
    n_words = _words(tokenizer, split) if whole else None
    total = split.n_tokens if whole else max_tokens
    return evaluate(model, batches, n_bytes, n_words=n_words, progress=progress, total=total)


def scored_bytes(tokenizer, batches: Iterable[Batch]) -> int:
    """The bytes of the tokens that `batches` score, exact for byte-level tokenizers: what bits per byte of a part of a
    split divide by (`data.evaluation.evaluation_bytes` takes each document's share, which may be some percent off)."""
    specials = set(tokenizer.special_tokens.values())
    lengths = [0 if i in specials else len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)]
    lengths = torch.tensor(lengths)
    return sum(int(lengths[batch.targets[batch.targets >= 0]].sum()) for batch in batches)


def _words(tokenizer, split: Split) -> int:
    """Runs of non-space in the split's documents."""
    return sum(
        len(tokenizer.decode(split.document(name, i)).split())
        for name, source in split.sources.items()
        for i in range(source.n_documents)
    )


def evaluate_text(model: Decoder, tokenizer, text: str, **options) -> dict:
    """One plain text: `evaluate_texts` of it alone."""
    return evaluate_texts(model, tokenizer, [text], **options)


def evaluate_texts(
    model: Decoder, tokenizer, texts: list[str], *, context: int | None = None, stride: int | None = None,
    batch: int = 16, progress: Progress = Progress(),
) -> dict:
    """Plain texts, each a document of its own after the beginning-of-text token; its end is not scored.

    With a tokenizer that has no such token, the first token of a text is not scored, nor are its bytes counted.
    `context` and `stride` default to the model's context.
    """
    context = _context(model, context, stride, batch)
    documents, n_bytes = [], 0
    for text in texts:
        ids, size = tokenizer.encode(text), len(text.encode("utf-8", "replace"))
        if tokenizer.bos_id is not None:
            ids = [tokenizer.bos_id, *ids]
        elif ids:
            size -= len(tokenizer.decode(ids[:1]).encode())
        documents.append(torch.tensor(ids, dtype=torch.int64))
        n_bytes += size
    total = sum(max(0, len(ids) - 1) for ids in documents)
    if not total:
        raise RequestError("the text is too short to score: it needs at least one token that follows another")
    batches = (b for ids in documents if len(ids) > 1 for b in _windows(ids, context, stride or context, batch))
    n_words = sum(len(text.split()) for text in texts)
    return evaluate(model, batches, n_bytes, n_words=n_words, progress=progress, total=total)


def _windows(ids: torch.Tensor, context: int, stride: int, batch: int) -> Iterator[Batch]:
    """`ids` (N,): rows of at most `context` inputs, starting every `stride`, that score each of the N - 1 targets
    once."""
    n = len(ids) - 1
    starts = list(range(0, max(1, n - context + stride), stride))
    *full, last = starts
    # the last window may be shorter than the others, so it goes alone
    for at in [*(full[i : i + batch] for i in range(0, len(full), batch)), [last]]:
        length = min(context, n - at[0])
        place = torch.tensor(at)[:, None] + torch.arange(length)  # (B, T)
        targets = ids[place + 1]
        targets[(place[:, :1] > 0) & (torch.arange(length) < context - stride)] = -100
        yield Batch(ids[place], targets, torch.arange(length)[None], None, int((targets >= 0).sum()))


def _context(model: Decoder, context: int | None, stride: int | None, batch: int) -> int:
    if not isinstance(model, Decoder):
        raise RequestError(
            f"perplexity is a decoder's, which predicts each token from those before it; this model is an "
            f"{model.config.kind}"
        )
    context = model.config.context if context is None else context
    if not 1 <= context <= model.config.context:
        raise RequestError(f"context {context} is not allowed: 1 to the model's {model.config.context}")
    if stride is not None and not 1 <= stride <= context:
        raise RequestError(f"stride {stride} is not allowed: 1 to the context, {context}")
    if type(batch) is not int or batch < 1:
        raise RequestError(f"batch {batch} is not allowed: it must be a whole number from 1 up")
    return context
