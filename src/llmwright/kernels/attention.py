"""Attention over the native kernel (`cpu/attention.cpp`), and through PyTorch where that does not serve.

The native kernel never holds the T × S matrix: beside its inputs it keeps one number a query, and makes the weights again
in the backward (Dao et al. 2022). It takes float32 and bfloat16, causal, grouped-query, any boolean mask, any strides.
"""

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from . import reference
from .native import call

_View = ctypes.c_long * 3


class _Shape(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_long) for name in ("B", "T", "S", "H", "K", "C")),
        *((name, _View) for name in ("q", "k", "v", "out")),
        ("mask", ctypes.c_void_p),
        *((name, ctypes.c_long) for name in ("mask_b", "mask_h", "mask_t")),
        ("scale", ctypes.c_float), ("causal", ctypes.c_int), ("threads", ctypes.c_int),
    ]


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _shape(q, k, v, out, mask, causal, scale) -> _Shape:
    B, T, H, C = q.shape
    views = [_View(*t.stride()[:3]) for t in (q, k, v, out)]
    shape = _Shape(B, T, k.shape[1], H, k.shape[2], C, *views)
    if mask is not None:
        shape.mask = mask.data_ptr()
        shape.mask_b, shape.mask_h, shape.mask_t = mask.stride()[:3]
    shape.scale, shape.causal, shape.threads = scale, causal, torch.get_num_threads()
    return shape


def _forward(q, k, v, mask, causal, scale, keep: bool):
    q, k, v = _dense(q), _dense(k), _dense(v)
    out = torch.empty(q.shape, dtype=q.dtype)
    lse = torch.empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32) if keep else None
    shape = ctypes.byref(_shape(q, k, v, out, mask, causal, scale))
    call("attention_forward", q.dtype, shape, q, k, v, out, lse)
    return out, lse


class _Attention(Function):
    @staticmethod
    def forward(ctx, q, k, v, mask, causal, scale):
        out, lse = _forward(q, k, v, mask, causal, scale, keep=True)
        ctx.save_for_backward(q, k, v, mask, lse)
        ctx.causal, ctx.scale = causal, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        q, k, v, mask, lse = ctx.saved_tensors
        q, k, v, dout = _dense(q), _dense(k), _dense(v), _dense(dout)
        dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype) for t in (q, k, v))
        shape = ctypes.byref(_shape(q, k, v, dout, mask, ctx.causal, ctx.scale))
        call("attention_backward", q.dtype, shape, q, k, v, dout, lse, dq, dk, dv)
        return dq, dk, dv, None, None, None


def native(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, causal: bool, scale: float | None) -> Tensor:
    """As `reference.attention`, for CPU tensors of one dtype, a boolean mask or none, and no dropout."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if mask is not None:
        mask = mask.expand(*mask.shape[:-1], k.shape[1]).contiguous()
        mask = mask.expand(q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return _Attention.apply(q, k, v, mask, causal, scale)
    return _forward(q, k, v, mask, causal, scale, keep=False)[0]


def windowed(run, q: Tensor, k: Tensor, v: Tensor, window: int, mask: Tensor | None, **options) -> Tensor:
    """`reference.attention` with a window, made of calls of `run` without one: `window` queries at a time look at the at
    most 2·window - 1 keys that they can see, so that time and memory grow with T·window and not with T·S."""
    T, S = q.shape[1], k.shape[1]
    if T == 1:
        k, v = k[:, -window:], v[:, -window:]
        return run(q, k, v, mask=_columns(mask, S - k.shape[1], S), causal=True, **options)
    made = []
    for start in range(0, T, window):
        end = min(start + window, T)
        first, last = max(0, S - T + start - window + 1), S - T + end
        rows = mask if mask is None or mask.shape[-2] == 1 else mask[..., start:end, :]
        near = reference.sees(end - start, last - first, window, q.device)
        part = _columns(rows, first, last)
        if part is not None and part.dtype != torch.bool:
            near = part.masked_fill(~near, float("-inf"))
        elif part is not None:
            near = part & near
        else:
            near = near[None, None]
        made.append(run(q[:, start:end], k[:, first:last], v[:, first:last], mask=near, causal=True, **options))
    return torch.cat(made, dim=1)


def _columns(mask: Tensor | None, first: int, last: int) -> Tensor | None:
    return mask if mask is None or mask.shape[-1] == 1 else mask[..., first:last]


def plain(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False,
    scale: float | None = None, softcap: float | None = None, dropout: float = 0.0,
) -> Tensor:
    """As `reference.attention` without a window, through F.scaled_dot_product_attention where that can."""
    T, S = q.shape[1], k.shape[1]
    if softcap:
        return reference.attention(
            q, k, v, mask=mask, causal=causal, scale=scale, softcap=softcap, dropout=dropout
        )
    if q.device.type == "cpu" and T > 1 and q.shape[0] * q.shape[2] * T * S <= 1 << 25:
        # measured on 2 cores of Zen 4: at these sizes plain products are about twice as fast
        return reference.attention(q, k, v, mask=mask, causal=causal, scale=scale, dropout=dropout)
    if causal and T > 1 and (mask is not None or T != S):
        sees = reference.sees(T, S, None, q.device)
        if mask is None:
            mask = sees
        else:
            mask = mask & sees if mask.dtype == torch.bool else mask.masked_fill(~sees, float("-inf"))
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(q.dtype)
    out = F.scaled_dot_product_attention(
        *(t.transpose(1, 2) for t in (q, k, v)), attn_mask=mask, dropout_p=dropout,
        is_causal=causal and T > 1 and mask is None, scale=scale, enable_gqa=q.shape[2] != k.shape[2],
    )
    return out.transpose(1, 2)
