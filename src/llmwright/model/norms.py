"""Normalization: RMSNorm (Zhang & Sennrich 2019) and LayerNorm (Ba, Kiros & Hinton 2016)."""

import torch
from torch import Tensor, nn

from .. import kernels
from .config import Norm


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight, over the last dimension."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Of `x`, or of the sum of both."""
        return kernels.rms_norm(x if added is None else x + added, self.weight, self.eps)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) · weight + bias, over the last dimension."""

    def __init__(self, width: int, eps: float, bias: bool):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Of `x`, or of the sum of both."""
        return kernels.layer_norm(x, self.weight, self.bias, self.eps, added)


def build(spec: Norm, width: int) -> nn.Module:
    return RMSNorm(width, spec.eps) if spec.kind == "rms" else LayerNorm(width, spec.eps, spec.bias)
