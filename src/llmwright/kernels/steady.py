"""A linear layer whose rows do not depend on each other to the bit: over the native kernel (`cpu/linear_steady.cpp`), and
through PyTorch one row at a time."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `reference.linear_steady`, by the native kernel, without gradients; `weight` contiguous."""
    outputs, K = weight.shape
    rows, stride = native.rows(x, K)
    dtype, bias = x.dtype, None if bias is None else bias.float()
    y = torch.empty((*x.shape[:-1], outputs), dtype=dtype)
    native.function("linear_steady", dtype)(
        rows.data_ptr(), stride, x.numel() // K, K, weight.data_ptr(), None if bias is None else bias.data_ptr(),
        outputs, y.data_ptr(), torch.get_num_threads(),
    )
    return y


def plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `reference.linear_steady`: each row is a product of its own."""
    rows = x.reshape(-1, x.shape[-1])
    made = [F.linear(row, weight, bias) for row in rows.split(1)]
    y = torch.cat(made) if made else rows.new_empty(0, len(weight))
    return y.view(*x.shape[:-1], len(weight))
