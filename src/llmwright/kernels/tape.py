"""A tape: native operations written down once and then run step by step in one call (`cpu/tape.h`).

A decoder asks for a dozen small operations in each of its layers. Called one by one from Python, each token of a small
model waits longer for these calls than for its weights; from a tape there is one call a step.
"""

import ctypes

import torch
from torch import Tensor

from . import native

# the fields of the operations' structures, in order: p pointer, l long, f float
OPERATIONS = {
    "quantize": "pllp",  # x, stride, K, room
    "linear_quantized": "lppllplp",  # K, w, bias, F, bits, y, add, room
    "linear_steady": "pllpplpl",  # x, stride, K, w, bias, F, y, add
    "norm": "plllppflpll",  # x, stride, heads, width, weight, bias, eps, layer, y, y_stride, add
    "keep": "plllllll",  # x, stride, H, K, C, half, kind, layer
    "attend": "pllllllffplp",  # q, stride, H, K, C, layer, window, scale, softcap, bias, P, out
    "activate": "pplllp",  # gate, up, stride, F, kind, y
}
ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "relu": 3}
_TYPES = {"p": ctypes.c_void_p, "l": ctypes.c_long, "f": ctypes.c_float}
_STRUCTURES = {
    name: type(name, (ctypes.Structure,), {"_fields_": [(f"field{i}", _TYPES[c]) for i, c in enumerate(fields)]})
    for name, fields in OPERATIONS.items()
}
GROUP = 32


class Step(ctypes.Structure):
    """What changes from step to step; as `struct Step` of cpu/tape.h. Whoever fills it keeps the tensors alive."""

    _fields_ = [
        ("N", ctypes.c_long), ("blocks", ctypes.c_long), ("size", ctypes.c_long), ("tables", ctypes.c_void_p),
        ("rows", ctypes.c_void_p), ("positions", ctypes.c_void_p), ("slots", ctypes.c_void_p), ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p), ("layer", ctypes.c_long), ("cos", ctypes.c_void_p * 2), ("sin", ctypes.c_void_p * 2),
        ("threads", ctypes.c_long),
    ]


class _Operation(ctypes.Structure):
    _fields_ = [("items", ctypes.c_void_p), ("run", ctypes.c_void_p), ("what", ctypes.c_void_p)]


class Tape:
    """`add` operations over tensors of `dtype`, which are kept; then `run` them as often as one likes."""

    def __init__(self, dtype: torch.dtype):
        self.dtype, self.kept, self.operations, self.array = dtype, [], [], None

    def add(self, name: str, *fields: Tensor | int | float | None) -> None:
        what = _STRUCTURES[name](*[f.data_ptr() if isinstance(f, Tensor) else f for f in fields])
        self.kept += [what, *(f for f in fields if isinstance(f, Tensor))]
        made = _Operation()
        native.on_tape(name, self.dtype, what, made)
        self.operations.append(made)
        self.array = None

    def run(self, step: Step) -> None:
        if self.array is None:
            self.array = (_Operation * len(self.operations))(*self.operations)
        native.run_tape(self.array, len(self.array), step)


def room(N: int, K: int) -> Tensor:
    """For N rows of K numbers in 8 bits, between "quantize" and "linear_quantized"."""
    groups = -(-K // GROUP)
    return torch.empty(N * groups * (GROUP + 12), dtype=torch.uint8)
