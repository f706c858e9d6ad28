"""Each hot operation once, by name, with a readable reference and faster implementations behind it.

What each operation means is written in `reference.py`, and tests hold every implementation against it. For a CPU tensor
of float32 or bfloat16 the native kernels run (`native.py`: C++ compiled at first use); everything else, and a machine
without a compiler, gets PyTorch's own operators. `using()` says which. The environment variable LLMWRIGHT_KERNELS
forces one: "reference", "torch" or "native".
"""

import functools
import os

import torch
from torch import Tensor
from torch.nn import Parameter

from ..errors import RequestError
from . import attention as _attention
from . import cross_entropy as _cross_entropy
from . import layer_norm as _layer_norm
from . import fused, int8, native, paged, plain, quantized, reference, steady
from .int8 import Int8Weight
from .quantized import QuantizedWeight

OPERATIONS = (
    "attention", "dropout", "layer_norm", "linear_cross_entropy", "linear_int8", "linear_quantized", "linear_steady",
    "paged_attention", "rms_norm", "rotary", "swiglu", "token_losses",
)
__all__ = [*OPERATIONS, "Int8Weight", "QuantizedWeight", "int8_weight", "quantized_weight", "using"]


@functools.cache
def _choose() -> str:
    asked = os.environ.get("LLMWRIGHT_KERNELS", "")
    if asked not in ("", "reference", "torch", "native"):
        raise RequestError(f"LLMWRIGHT_KERNELS={asked}: it must be reference, torch or native")
    if asked in ("reference", "torch"):
        return asked
    if native.library() is not None:
        return "native"
    if asked == "native":
        raise RequestError(f"LLMWRIGHT_KERNELS=native: the kernels cannot be built here: {native.problem()}")
    return "torch"


def _mode() -> str:
    """"reference", "torch" or "native", chosen once for the process; torch.compile takes it as it stands."""
    return _choose()


_PLAIN = (Tensor, Parameter)
_mode._dynamo_marked_constant = True  # as torch.compiler.assume_constant_result does, which imports the whole compiler


def using(device: str | torch.device = "cpu") -> dict[str, str]:
    """Which implementation each operation has on `device`: "reference", "torch" or "native" (float32, bfloat16)."""
    mode = "torch" if torch.device(device).type != "cpu" and _mode() == "native" else _mode()
    found = {name: mode for name in OPERATIONS}
    if mode != "native" or not native.vnni():
        found["linear_int8"] = "reference"
    if mode == "native" and not native.vnni():
        found["linear_quantized"] = "torch"
    return found


def _native(first: Tensor, *others: Tensor) -> bool:
    """Whether the native kernels can take these: plain CPU tensors of one supported dtype, and no compiler tracing."""
    dtype = first.dtype
    if torch.compiler.is_compiling() or not first.is_cpu or dtype not in native.DTYPES or _mode() != "native":
        return False
    if type(first) not in _PLAIN or not first.numel():
        return False
    for t in others:  # not `all` of a generator: this runs some hundred times for each token that is written
        if type(t) not in _PLAIN or t.dtype != dtype:
            return False
    return True


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    if _native(x):
        return fused.rms_norm(x, weight, eps)
    return (reference if _mode() == "reference" else plain).rms_norm(x, weight, eps)


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, added: Tensor | None = None
) -> Tensor:
    if _native(x) and (added is None or _native(x, added)):
        return _layer_norm.layer_norm(x, weight, bias, eps, added)
    return (reference if _mode() == "reference" else plain).layer_norm(x, weight, bias, eps, added)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return fused.rotary(x, cos, sin) if _native(x) else reference.rotary(x, cos, sin)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return fused.swiglu(gate, up) if _native(gate, up) else reference.swiglu(gate, up)


def dropout(x: Tensor, p: float) -> Tensor:
    return fused.dropout(x, p) if _native(x) else reference.dropout(x, p)


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False, window: int | None = None,
    scale: float | None = None, softcap: float | None = None, dropout: float = 0.0,
) -> Tensor:
    options = dict(scale=scale, softcap=softcap, dropout=dropout)
    if _mode() == "reference":
        return reference.attention(q, k, v, mask=mask, causal=causal, window=window, **options)
    if window is not None and window < k.shape[1]:
        return _attention.windowed(attention, q, k, v, window, mask, **options)
    if _native(q, k, v) and k.numel() and not dropout and not softcap and (mask is None or mask.dtype == torch.bool):
        return _attention.native(q, k, v, mask=mask, causal=causal, scale=scale)
    return _attention.plain(q, k, v, mask=mask, causal=causal, **options)


def paged_attention(
    q: Tensor, keys: Tensor, values: Tensor, tables: Tensor, rows: Tensor, positions: Tensor, *,
    scale: float | None = None, window: int | None = None, softcap: float | None = None, key_bias: Tensor | None = None,
) -> Tensor:
    if _native(q, keys, values) and keys.is_contiguous() and values.is_contiguous() and tables.stride(1) == 1:
        return paged.attend(q, keys, values, tables, rows, positions, scale, window, softcap, key_bias)
    options = dict(scale=scale, window=window, softcap=softcap, key_bias=key_bias)
    if _mode() == "reference":
        return reference.paged_attention(q, keys, values, tables, rows, positions, **options)
    return paged.plain(attention, q, keys, values, tables, rows, positions, **options)


def int8_weight(weight: Tensor, bias: Tensor | None = None) -> Int8Weight:
    """A layer's matrix (F, K) and bias for `linear_int8`."""
    quantized, scale = reference.quantize_weight(weight.detach())
    bias = None if bias is None else bias.detach().float()
    make = int8.packed if using(weight.device)["linear_int8"] == "native" else Int8Weight
    return make(quantized, scale, bias)


def linear_int8(x: Tensor, w: Int8Weight, *, gelu: bool = False) -> Tensor:
    if w.panels is not None and _native(x):
        return int8.linear(x, w, gelu)
    return reference.linear_int8(x, w.weight, w.scale, w.bias, gelu=gelu)


def quantized_weight(weight: Tensor, bias: Tensor | None = None, bits: int = 8) -> QuantizedWeight:
    """A layer's matrix (F, K) and bias for `linear_quantized`, in 8 or 4 bits."""
    return quantized.make(weight, bias, bits, using(weight.device)["linear_quantized"] == "native")


def linear_quantized(x: Tensor, w: QuantizedWeight) -> Tensor:
    """x · Wᵀ + bias of a layer in 8 or 4 bits (`quantized_weight`); what that is: `reference.linear_quantized`. Where
    its native kernel does not serve, x keeps its own precision. `x` (..., K); (..., F), of x's dtype; without gradients."""
    if not x.numel():
        return x.new_empty((*x.shape[:-1], w.shape[0]))
    return quantized.linear(x, w) if w.panels is not None and _native(x) else quantized.plain(x, w)


def linear_steady(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if _mode() == "reference":
        return reference.linear_steady(x, weight, bias)
    if _native(x, weight) and not torch.is_grad_enabled() and weight.is_contiguous():
        return steady.linear(x, weight, bias)
    return steady.plain(x, weight, bias)


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, ignore_index: int = -100, label_smoothing: float = 0.0
) -> Tensor:
    options = dict(ignore_index=ignore_index, label_smoothing=label_smoothing)
    if _mode() == "reference":
        return reference.linear_cross_entropy(hidden, weight, targets, **options)
    return _cross_entropy.linear_cross_entropy(hidden, weight, targets, use_native=_native(hidden), **options)


def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    if _mode() == "reference":
        return reference.token_losses(hidden, weight, targets)
    return _cross_entropy.token_losses(hidden, weight, targets, use_native=_native(hidden))


for _name in OPERATIONS:
    globals()[_name].__doc__ = globals()[_name].__doc__ or getattr(reference, _name).__doc__
