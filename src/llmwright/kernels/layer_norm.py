"""Layer norm of a sum over the native kernel (`cpu/layer_norm.cpp`), with its backward pass. Inputs may be slices whose
rows are contiguous; results are contiguous."""

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from .native import call


def _rows(x: Tensor) -> Tensor:
    """(..., D) as (N, D) with contiguous rows, without a copy where the strides allow."""
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous()


def _float(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.detach().float().contiguous()


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, added: Tensor | None, keep: bool):
    y = torch.empty(x.shape, dtype=x.dtype)
    rows, more, w, b = _rows(x), None if added is None else _rows(added), _float(weight), _float(bias)
    N, D = rows.shape
    summed = torch.empty(N, D, dtype=x.dtype) if keep and more is not None else None
    mean, rstd = torch.empty(2, N, dtype=torch.float32)
    call("layer_norm_forward", x.dtype, rows, rows.stride(0), more, 0 if more is None else more.stride(0), N, D, w, b,
         eps, y, summed, mean, rstd, torch.get_num_threads())
    return y, rows if summed is None else summed, mean, rstd


class _LayerNorm(Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps, added):
        y, normed, mean, rstd = _forward(x, weight, bias, eps, added, keep=True)
        ctx.save_for_backward(normed, weight, mean, rstd)
        ctx.bias, ctx.added = None if bias is None else bias.dtype, added is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        normed, weight, mean, rstd = ctx.saved_tensors
        (N, D), rows = normed.shape, _rows(dy)
        dx = torch.empty(dy.shape, dtype=dy.dtype)
        parts = max(1, min(32, N // 32))
        dw, db = torch.empty(2, parts, D, dtype=torch.float32)
        call("layer_norm_backward", dy.dtype, rows, rows.stride(0), normed, normed.stride(0), N, D, _float(weight),
             mean, rstd, dx, dw, db, parts, torch.get_num_threads())
        db = None if ctx.bias is None else db.sum(0).to(ctx.bias)
        return dx, dw.sum(0).to(weight.dtype), db, None, dx if ctx.added else None


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, added: Tensor | None) -> Tensor:
    """As `reference.layer_norm`."""
    inputs = [t for t in (x, weight, bias, added) if t is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in inputs):
        return _LayerNorm.apply(x, weight, bias, eps, added)
    return _forward(x, weight, bias, eps, added, keep=False)[0]
