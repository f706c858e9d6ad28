"""The encoder-only transformer: every position sees the whole text (Devlin et al. 2019). It fills masks (`model(ids)`),
and turns a text into one vector (`vectors`; Reimers & Gurevych 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig, Sentence
from .head import Head
from .stack import Stack
from .transformer import Transformer


class Encoder(Transformer, Stack):
    def __init__(self, config: ModelConfig):
        Stack.__init__(self, config, causal=False)
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.token_types = nn.Embedding(config.token_types, config.d_model) if config.token_types else None
        self.pooler = nn.Linear(config.d_model, config.d_model) if config.pooler else None
        self.head = Head(config) if config.head else None

    @property
    def stacks(self) -> list[Stack]:
        return [self]

    def hidden(
        self, input_ids: Tensor, *, positions: Tensor | None = None, segments: Tensor | None = None,
        mask: Tensor | None = None, token_types: Tensor | None = None,
    ) -> Tensor:
        """`input_ids` (B, T) int64 → states (B, T, D). `mask` (B, 1, 1, T) bool is False on padding. `token_types`
        (B, T) default to 0. Other keywords as in `Stack.run`."""
        x = self.embeddings(input_ids)
        if self.token_types is not None:
            x = x + (self.token_types.weight[0] if token_types is None else self.token_types(token_types))
        return self.run(x, positions=positions, segments=segments, mask=mask)

    def forward(self, input_ids: Tensor, **kwargs) -> Tensor:
        """`input_ids` (B, T) → logits (B, T, V) float32; keywords as in `hidden`."""
        return self.logits(self.hidden(input_ids, **kwargs))

    def pooled(self, hidden: Tensor) -> Tensor:
        """States (B, T, D) → tanh(dense(first state)), (B, D): what BERT classifies from."""
        first = hidden[:, 0]
        return torch.tanh(F.linear(first, self.pooler.weight.to(first.dtype), self.pooler.bias.to(first.dtype)))

    def vectors(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """One vector a row, (B, D) float32, as the configuration's `sentence` says; without one, the mean of the states
        at length 1. `mask` (B, T) bool is False on padding."""
        hidden = self.hidden(input_ids, mask=None if mask is None else mask[:, None, None]).float()
        how = self.config.sentence or Sentence()
        pooled = pool(hidden, mask, how.pooling)
        return F.normalize(pooled, dim=-1) if how.normalize else pooled


def pool(states: Tensor, mask: Tensor | None, how: str) -> Tensor:
    """`states` (B, T, D), `mask` (B, T) bool or None → (B, D), by `Sentence.pooling`."""
    if how == "first":
        return states[:, 0]
    if how == "max":
        return (states if mask is None else states.masked_fill(~mask[..., None], -torch.inf)).amax(1)
    if mask is None:
        return states.mean(1)
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
