"""Float32 master weights beside a working copy in lower precision (Micikevicius et al. 2018, section 3.1).

The model computes with its blocks' matrices in bfloat16; the optimizer changes float32 masters, and each step the
masters are rounded into the working copy once. Autocast, the usual way, rounds every matrix again in every pass.
Weights that stay in float32 (embeddings, norms) are their own masters. In float32 all are, and nothing is copied.
"""

import torch
from torch import Tensor

from ..model.transformer import Transformer


class Masters:
    """`weights`: name → float32 tensor that the optimizer changes; its `.grad` is what the optimizer reads."""

    def __init__(self, model: Transformer, dtype: torch.dtype):
        before = {name: p.detach().float().clone() for name, p in model.named_parameters()}
        model.set_dtype(dtype)
        self.model = model
        self.working = dict(model.named_parameters())
        self.weights: dict[str, Tensor] = {
            name: p if p.dtype == torch.float32 else before[name] for name, p in self.working.items()
        }
        self._copies = [(self.weights[name], p) for name, p in self.working.items() if p.dtype != torch.float32]

    def collect(self) -> None:
        """After each backward pass: add the working copy's gradients to the masters', in float32."""
        for master, working in self._copies:
            if working.grad is not None:
                if master.grad is None:
                    master.grad = working.grad.float()
                else:
                    master.grad += working.grad
                working.grad = None

    def gradients(self) -> list[Tensor]:
        return [w.grad for w in self.weights.values() if w.grad is not None]

    def scale_and_clip(self, scale: float, clip: float) -> float:
        """Multiply the gradients by `scale`, then by what brings their norm (over all weights together) down to
        `clip` (Pascanu et al. 2013; 0: no limit). Returns the norm before clipping; non-finite gradients stay."""
        gradients = self.gradients()
        norm = torch.stack(torch._foreach_norm(gradients)).norm().item() * scale
        factor = scale * min(1.0, clip / (norm + 1e-6)) if clip else scale
        torch._foreach_mul_(gradients, factor)
        return norm

    def finite(self) -> bool:
        """Whether every weight is a finite number."""
        return bool(torch.stack(torch._foreach_norm(list(self.weights.values()))).isfinite().all())

    def clear(self) -> None:
        for w in self.weights.values():
            w.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the working copy."""
        if self._copies:
            masters, working = zip(*self._copies)
            torch._foreach_copy_(list(working), list(masters))
