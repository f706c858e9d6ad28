"""RMS norm, rotary positions, SwiGLU and dropout over the native kernels, each with its backward pass.

One pass over memory forward and one backward, where PyTorch's own operators make several and convert bfloat16 to
float32 in between. Inputs may be slices (any strides but the last, which is 1); results are contiguous.
"""

import ctypes

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from .native import call

_Rows = ctypes.c_long * 6


def _lines(x: Tensor, collapse: bool = True) -> tuple[Tensor, ctypes.Array]:
    """`x` with its leading dimensions as three sizes and three strides (`struct Rows`); a copy where that cannot be."""
    if collapse and x.is_contiguous():
        return x, _Rows(1, 1, x.numel() // x.shape[-1], 0, 0, x.shape[-1])
    if x.ndim > 4:
        return _lines(x.contiguous())
    if x.stride(-1) != 1 and x.shape[-1] != 1:
        x = x.contiguous()
    pad = 4 - x.ndim
    return x, _Rows(*[1] * pad, *x.shape[:-1], *[0] * pad, *x.stride()[:-1])


def _flat(x: Tensor) -> Tensor:
    """(..., F) as (N, F) with contiguous rows, without a copy where the strides allow."""
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous()


def _needs_grad(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    x, lines = _lines(x)
    y = torch.empty(x.shape, dtype=x.dtype)
    rstd = torch.empty(x.numel() // x.shape[-1], dtype=torch.float32)
    weight = weight.detach().float().contiguous()
    call("rms_norm_forward", x.dtype, x, lines, x.shape[-1], weight, eps, y, rstd, torch.get_num_threads())
    return y, rstd


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx, x, weight, eps):
        y, rstd = _rms_norm(x, weight, eps)
        ctx.save_for_backward(x, weight, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, weight, rstd = ctx.saved_tensors
        D, N = x.shape[-1], rstd.numel()
        x, x_lines = _lines(x)
        dy, dy_lines = _lines(dy)
        dx = torch.empty(x.shape, dtype=x.dtype)
        parts = max(1, min(32, N // 32))
        dw = torch.empty(parts, D, dtype=torch.float32)
        w = weight.float().contiguous()
        call("rms_norm_backward", x.dtype, dy, dy_lines, x, x_lines, D, w, rstd, dx, dw, parts, torch.get_num_threads())
        return dx, dw.sum(0).to(weight.dtype), None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return _RMSNorm.apply(x, weight, eps) if _needs_grad(x, weight) else _rms_norm(x, weight, eps)[0]


def _rotary(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    x, lines = _lines(x, collapse=False)
    cos, sin = cos.float().contiguous(), sin.float().contiguous()
    y = torch.empty(x.shape, dtype=x.dtype)
    angles = cos.shape[1] * cos.shape[2] if cos.shape[0] > 1 else 0
    call("rotary", x.dtype, x, lines, x.shape[-1], cos, sin, angles, sign, y, torch.get_num_threads())
    return y


class _Rotary(Function):
    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return _rotary(x, cos, sin, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        return _rotary(dy, *ctx.saved_tensors, -1.0), None, None


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return _Rotary.apply(x, cos, sin) if _needs_grad(x) else _rotary(x, cos, sin, 1.0)


def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    y = torch.empty(gate.shape, dtype=gate.dtype)
    gate, up = _flat(gate), _flat(up)
    N, F = gate.shape
    call("swiglu_forward", y.dtype, gate, gate.stride(0), up, up.stride(0), N, F, y, torch.get_num_threads())
    return y


class _SwiGLU(Function):
    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return _swiglu(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        gate, up = ctx.saved_tensors
        dgate, dup = torch.empty(gate.shape, dtype=gate.dtype), torch.empty(up.shape, dtype=up.dtype)
        dy, gate, up = _flat(dy), _flat(gate), _flat(up)
        N, F = gate.shape
        strides = dy.stride(0), gate.stride(0), up.stride(0)
        call("swiglu_backward", gate.dtype, dy, strides[0], gate, strides[1], up, strides[2], N, F, dgate, dup,
             torch.get_num_threads())
        return dgate, dup


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return _SwiGLU.apply(gate, up) if _needs_grad(gate, up) else _swiglu(gate, up)


def _dropout(x: Tensor, p: float, seed: int) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    call("dropout", x.dtype, x, x.numel(), seed, p, y, torch.get_num_threads())
    return y


class _Dropout(Function):
    @staticmethod
    def forward(ctx, x, p):
        ctx.p, ctx.seed = p, int(torch.randint(2**63 - 1, ()))  # of PyTorch's generator, which a checkpoint keeps
        return _dropout(x, p, ctx.seed)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        return _dropout(dy, ctx.p, ctx.seed), None


def dropout(x: Tensor, p: float) -> Tensor:
    return _Dropout.apply(x, p)
