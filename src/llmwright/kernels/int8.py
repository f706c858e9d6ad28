"""A linear layer in 8 bits over the native kernel (`cpu/linear_int8.cpp`), which wants its weights in panels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from . import native

PANEL = 64  # outputs


@dataclass(frozen=True)
class Int8Weight:
    """A matrix (F, K) in 8 bits with its layer's bias, as `kernels.int8_weight` makes it. `panels` and the vectors that
    zeros fill up to whole panels are for the native kernel."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    panels: Tensor | None = None
    padded: tuple[Tensor, Tensor, Tensor] | None = None  # scale, each output's sum of weights, bias


def packed(weight: Tensor, scale: Tensor, bias: Tensor | None) -> Int8Weight:
    """With panels, [F / 64][K / 4][64][4]."""
    F, K = weight.shape
    panels, quads = -(-F // PANEL), -(-K // 4)
    full = torch.zeros(panels * PANEL, quads * 4, dtype=torch.int8)
    full[:F, :K] = weight
    vectors = torch.zeros(3, panels * PANEL)
    vectors[0, :F], vectors[1, :F] = scale, weight.sum(1)
    if bias is not None:
        vectors[2, :F] = bias
    panels = full.view(panels, PANEL, quads, 4).transpose(1, 2).contiguous()
    return Int8Weight(weight, scale, bias, panels, tuple(vectors))


def linear(x: Tensor, w: Int8Weight, gelu: bool) -> Tensor:
    """As `reference.linear_int8`, for a CPU tensor of float32 or bfloat16."""
    F, K = w.weight.shape
    rows = x.reshape(-1, K)
    rows = rows if rows.stride(1) == 1 or K == 1 else rows.contiguous()
    y = torch.empty(*x.shape[:-1], F, dtype=x.dtype)
    native.call("linear_int8", x.dtype, rows, rows.stride(0), len(rows), K, w.panels, *w.padded, F, gelu, y,
                torch.get_num_threads())
    return y
