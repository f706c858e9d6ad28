"""Muon (Jordan et al. 2024) with matrices of one shape orthogonalized together.

torch.optim.Muon runs the Newton–Schulz iteration matrix by matrix: fifteen small products each, whose call overhead is a
third of a step for a small model on a CPU. Here the same arithmetic runs once for each shape, on a stack of matrices.
Hyperparameters, state and result are torch's; a test holds them together.
"""

from collections import defaultdict

import torch
from torch import Tensor
from torch.optim import Muon as TorchMuon


class Muon(TorchMuon):
    """`torch.optim.Muon`, faster where several matrices share a shape. Parameters: those of torch's."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[min(p.shape), max(p.shape)].append(p)
            for parameters in by_shape.values():
                self._update(group, parameters)
        return loss

    def _update(self, group: dict, parameters: list[Tensor]) -> None:
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p.grad)
        gradients = [p.grad for p in parameters]
        momenta = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        directions = torch._foreach_lerp(gradients, momenta, group["momentum"]) if group["nesterov"] else momenta
        wide = [d if d.shape[0] <= d.shape[1] else d.T for d in directions]
        updates = orthogonalize(torch.stack(wide), group["ns_coefficients"], group["ns_steps"], group["eps"])
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        for p, update in zip(parameters, updates):
            rows, columns = p.shape
            rate = group["lr"] * self._scale(group["adjust_lr_fn"], rows, columns)
            p.add_(update if rows <= columns else update.T, alpha=-rate)

    @staticmethod
    def _scale(kind: str | None, rows: int, columns: int) -> float:
        """How the learning rate depends on the shape: "original" sqrt(max(1, rows/columns)) (Jordan et al.),
        "match_rms_adamw" 0.2·sqrt(max(rows, columns)) (Liu et al. 2025)."""
        if kind == "match_rms_adamw":
            return 0.2 * max(rows, columns) ** 0.5
        return max(1.0, rows / columns) ** 0.5


def orthogonalize(x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Each matrix of `x` (N, r, c), r ≤ c, with its singular values brought near 1: the quintic Newton–Schulz iteration
    X ← aX + (bA + cA²)X with A = XXᵀ, in bfloat16. Returns (N, r, c) bfloat16."""
    a, b, c = coefficients
    x = x.bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)  # spectral norm at most 1
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
