"""Texts to vectors: an encoder reads each text, and its states become one vector (Reimers & Gurevych 2019, section 3).

Texts are read longest first in batches of about equal numbers of tokens, so that next to nothing is padding; a text's
vector does not depend on its neighbours beyond rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import RequestError
from ..model.config import Sentence
from ..model.encoder import Encoder
from ..progress import Progress
from ..tokens import around

BATCH_TOKENS = 4096  # with MiniLM on Zen 4, 1,024 to 8,192 are equally fast and 16,384 slower
CHUNK = 8192  # texts that are tokenized and sorted at a time: memory does not grow with their number


@dataclass(frozen=True)
class Read:
    """Texts as a model reads them: `ids`, each (T,) int64 with what goes around it, and which were `cut` at `limit`."""

    ids: list[np.ndarray]
    cut: list[int]
    limit: int


def read(
    model: Encoder, tokenizer, texts: Sequence[str], prompt: str | None = None, max_tokens: int | None = None
) -> Read:
    """The ids of `texts`, each after the prompt of that name, and cut to `max_tokens` (None: as the model says)."""
    how = model.config.sentence or Sentence()
    before = _prompt(how, prompt)
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise RequestError(f"text {number} is {type(text).__name__}, not a string")
        if not text.strip():
            raise RequestError(f"text {number} is empty: there is nothing to embed")
    context = model.config.context
    limit = max_tokens or how.max_tokens or context
    if limit > context:
        raise RequestError(f"max_tokens {limit}: the model reads at most {context} tokens")
    frame = around.read(tokenizer.tree)
    plain = tokenizer.encode_batch([before + (text.lower() if how.lower else text) for text in texts])
    room = limit - frame.marks()
    return Read([frame.put(ids, max_tokens=limit)[0] for ids in plain],
                [i for i, ids in enumerate(plain) if len(ids) > room], limit)


def embed(
    model: Encoder, tokenizer, texts: Sequence[str], *, prompt: str | None = None, max_tokens: int | None = None,
    batch_tokens: int = BATCH_TOKENS, progress: Progress = Progress(),
) -> np.ndarray:
    """One vector a text, (N, D) float32, in the texts' order.

    `prompt`: the name of one of the model's prompts, put before each text. `max_tokens`: read no more of a text (None:
    as the model says); `progress` is told of texts that are longer. Raises RequestError for an empty text, and for a
    model that is no encoder.
    """
    check(model)
    if batch_tokens < 1:
        raise RequestError(f"batch_tokens {batch_tokens} is not allowed: it must be from 1 up")
    if tokenizer.vocab_size > model.config.vocab_size:
        raise RequestError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}")
    vectors, cut, limit = np.empty((len(texts), model.config.d_model), np.float32), 0, 0
    with progress.task("embed", total=len(texts), unit="texts") as task:
        for start in range(0, len(texts), CHUNK):
            found = read(model, tokenizer, texts[start : start + CHUNK], prompt, max_tokens)
            cut, limit = cut + len(found.cut), found.limit
            groups = list(batches([len(ids) for ids in found.ids], batch_tokens))
            for rows, made in _each(groups, model, lambda rows: _vectors(
                    model, [found.ids[i] for i in rows], tokenizer.pad_id or 0)):
                vectors[start + np.array(rows)] = made
                task.advance(len(rows))
    if cut:
        these = f"{cut:,} of {len(texts):,} texts are" if len(texts) > 1 else "the text is"
        progress.say(f"{these} longer than the {limit} tokens that are read; the rest of them does not count")
    return vectors


def check(model) -> None:
    """Raise RequestError unless `model` is an encoder."""
    if not isinstance(model, Encoder):
        raise RequestError(
            f"this model is a {model.config.kind} ({model.config.family}); vectors come from an encoder, such as "
            "all-minilm-l6-v2"
        )


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Which texts go together: the longest first, each batch at most `batch_tokens` with its padding, or one text."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        n = max(1, batch_tokens // max(1, lengths[order[0]]))
        yield order[:n]
        order = order[n:]


def _each(groups: list[list[int]], model: Encoder, work: Callable) -> Iterator[tuple[list[int], np.ndarray]]:
    """Each group and what `work` makes of it, as they get done. On a CPU every thread takes whole batches, since threads
    that share each product wait for each other hundreds of times a batch."""
    threads = torch.get_num_threads()
    if model.device.type != "cpu" or threads == 1 or len(groups) < 2 * threads:
        yield from ((rows, work(rows)) for rows in groups)
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        jobs = {pool.submit(work, rows): rows for rows in groups}
        for job in as_completed(jobs):
            yield jobs.pop(job), job.result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # a worker's setting is the next new thread's too


@torch.inference_mode()
def _vectors(model: Encoder, rows: list[np.ndarray], pad: int) -> np.ndarray:
    """The vectors of one batch, (B, D)."""
    lengths = torch.tensor([len(ids) for ids in rows])
    ids = torch.full((len(rows), int(lengths.max())), pad)  # (B, T), padded on the right
    for row, found in zip(ids, rows):
        row[: len(found)] = torch.from_numpy(found)
    mask = None
    if int(lengths.min()) < ids.shape[1]:
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).to(model.device)  # (B, T)
    return model.vectors(ids.to(model.device), mask).cpu().numpy()


def _prompt(how: Sentence, name: str | None) -> str:
    prompts = dict(how.prompts)
    name = how.prompt if name is None else name
    if name is not None and name not in prompts:
        known = ", ".join(prompts) or "none"
        raise RequestError(f"prompt {name!r} is not one of the model's; it has: {known}")
    return prompts.get(name, "")
