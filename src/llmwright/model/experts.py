"""A sparse mixture of experts in the place of the feed-forward: a router scores E of them for each token, the best few
compute, and their outputs are added by the router's shares (Shazeer et al. 2017; Jiang et al. 2024, section 2.1).

Each expert computes all tokens that chose it, however many (dropless: Gale et al. 2023). In training the router's two
losses are left in `auxiliary_loss` for the objective to add.
"""

import torch
from torch import Tensor, nn

from .config import Experts as Spec, FeedForward
from .feedforward import build


class MixtureOfExperts(nn.Module):
    def __init__(self, spec: Spec, feed_forward: FeedForward, d_model: int):
        super().__init__()
        self.spec = spec
        self.router = nn.Linear(d_model, spec.n_experts, bias=False)
        self.experts = nn.ModuleList(build(feed_forward, d_model) for _ in range(spec.n_experts))
        self.auxiliary_loss: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B, T, D) → (B, T, D)."""
        tokens = x.flatten(0, 1)  # (N, D)
        scores = self.router(tokens).float()  # (N, E)
        shares = scores.softmax(-1)
        best, chosen = shares.topk(self.spec.n_active, dim=-1)  # (N, n_active)
        best = best / best.sum(-1, keepdim=True)
        if self.training:
            self.auxiliary_loss = self._losses(scores, shares, chosen)
        y = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            row, rank = (chosen == number).nonzero(as_tuple=True)
            if len(row) or self.training:  # in training every expert has a gradient, if only of zeros
                y = y.index_add(0, row, expert(tokens[row]) * best[row, rank, None].to(y.dtype))
        return y.view(x.shape)

    def _losses(self, scores: Tensor, shares: Tensor, chosen: Tensor) -> Tensor:
        """balance: E · Σ over experts of (choices of it a token) · (mean share of it), which is least when all are
        equal; z: mean of logsumexp(scores)²."""
        n = self.spec.n_experts
        choices = torch.nn.functional.one_hot(chosen, n).sum(1).float().mean(0)  # (E,)
        balance = n * (choices * shares.mean(0)).sum()
        z = scores.logsumexp(-1).square().mean()
        return self.spec.balance_loss * balance + self.spec.z_loss * z
