"""How likely a prompt is: the log-probability of each of its tokens after those before it, as it is read.

The states of a chunk's positions are there anyway; what they say of the next tokens is computed from them at once, so that
there are never logits of a whole prompt, which are larger than the model's states by vocabulary over width.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..model.decoder import Decoder
from .sampler import check, likeliest
from .scheduler import Chunk

AT_ONCE = 1 << 24  # logits that are held at a time: 64 MB


@dataclass
class PromptScores:
    """Of the tokens that are scored already: their log-probabilities, and `top` of the likeliest tokens at each place. The
    first comes after nothing: None."""

    top: int = 0
    log_probs: list[float | None] = field(default_factory=lambda: [None])
    top_log_probs: list[list[tuple[int, float]] | None] = field(default_factory=lambda: [None])

    def take(self, chunk: Chunk, states: Tensor, model: Decoder, vocab_size: int) -> None:
        """`states` (n, D) of the chunk's positions. What was scored before its text had to be read again is left out.
        Raises WorkError where the model is damaged."""
        sequence = chunk.sequence
        last, at_once = sequence.n_prompt - 1, max(1, AT_ONCE // model.config.vocab_size)
        end = min(chunk.end, last)
        for start in range(sequence.scored, end, at_once):
            stop = min(end, start + at_once)
            some, tokens = states[start - chunk.start : stop - chunk.start], sequence.tokens[start + 1 : stop + 1]
            logits = model.logits(some)
            logits[:, vocab_size:] = -torch.inf  # rows that no text stands for
            self._score(logits, tokens)
            sequence.scored = stop
        if sequence.scored == last:
            sequence.scored = None  # from now on its positions may be found

    def _score(self, logits: Tensor, tokens: list[int]) -> None:
        """`logits` (N, V) float32 of the places where `tokens` stand."""
        check(logits)
        log_probs = logits.log_softmax(-1)
        self.log_probs += log_probs.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
        self.top_log_probs += likeliest(log_probs, self.top) or [[]] * len(tokens)
