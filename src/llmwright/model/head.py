"""From states to logits: a comparison with each token's row of a table, which may be the embeddings' own (Press & Wolf
2017), and what some families do before and after it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .. import kernels
from . import norms
from .config import ModelConfig
from .feedforward import ACTIVATIONS

ROWS = 1024  # at a time, where logits of all rows would be large


class Head(nn.Module):
    """`table` of every method is (V, D): the embeddings where the head is tied to them, else this head's `weight`.

    States come in any floating dtype; logits and losses are float32.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.spec = spec = config.head
        self.weight = None if config.tie_embeddings else nn.Parameter(torch.empty(config.vocab_size, config.d_model))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if spec.bias else None
        self.transform = self.transform_norm = None
        if spec.transform:
            self.transform = nn.Linear(config.d_model, config.d_model)
            self.transform_norm = norms.build(config.norm, config.d_model)
        self.plain = self.bias is None and spec.softcap is None
        self.product = None  # states (…, D) → (…, V), in the place of the table, where the model only writes

    def states(self, hidden: Tensor) -> Tensor:
        """(…, D) → (…, D): what is compared with the table."""
        if self.transform is not None:
            hidden = F.linear(hidden, self.transform.weight.to(hidden.dtype), self.transform.bias.to(hidden.dtype))
            hidden = self.transform_norm(ACTIVATIONS[self.spec.transform](hidden))
        return hidden if self.spec.scale == 1 else hidden * self.spec.scale

    def logits(self, hidden: Tensor, table: Tensor) -> Tensor:
        """(…, D) → (…, V)."""
        states = self.states(hidden)
        logits = (F.linear(states, table.to(hidden.dtype)) if self.product is None else self.product(states)).float()
        if self.bias is not None:
            logits = logits + self.bias
        if self.spec.softcap:
            logits = self.spec.softcap * torch.tanh(logits / self.spec.softcap)
        return logits

    def cross_entropy(self, hidden: Tensor, table: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The sum over rows of -log p(target), in nats. `hidden` (N, D), `targets` (N,), -100 where there is none."""
        if self.plain:
            return kernels.linear_cross_entropy(self.states(hidden), table, targets, label_smoothing=label_smoothing)
        parts = zip(hidden.split(ROWS), targets.split(ROWS))
        return sum(checkpoint(self._sum, h, table, t, label_smoothing, use_reentrant=False) for h, t in parts)

    def _sum(self, hidden: Tensor, table: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        logits = self.logits(hidden, table)
        return F.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)

    @torch.no_grad()
    def token_losses(self, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        """-log p(target) of each row, (N,); 0 where the target is -100."""
        if self.plain and self.product is None:
            return kernels.token_losses(self.states(hidden), table, targets)
        parts = zip(hidden.split(ROWS), targets.split(ROWS))
        return torch.cat([F.cross_entropy(self.logits(h, table), t, reduction="none") for h, t in parts])
