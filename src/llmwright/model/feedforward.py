"""The feed-forward half of a block: each position by itself, wide and back (Vaswani et al. 2017, section 3.3), plain or
with a gate (Shazeer 2020)."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from .. import kernels
from . import dropout
from .config import FeedForward as Spec

ACTIVATIONS = {"silu": F.silu, "gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh"), "relu": F.relu}


class FeedForward(nn.Module):
    """down(act(up x)): (B, T, D) → (B, T, D)."""

    def __init__(self, spec: Spec, d_model: int):
        super().__init__()
        self.up = nn.Linear(d_model, spec.d_ff, bias=spec.bias)
        self.down = nn.Linear(spec.d_ff, d_model, bias=spec.bias)
        self.activation = ACTIVATIONS[spec.activation]
        self.dropout = dropout.build(spec.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.dropout(self.activation(self.up(x))))


class GatedFeedForward(nn.Module):
    """down(act(gate x) · up x): (B, T, D) → (B, T, D)."""

    def __init__(self, spec: Spec, d_model: int):
        super().__init__()
        self.gate = nn.Linear(d_model, spec.d_ff, bias=spec.bias)
        self.up = nn.Linear(d_model, spec.d_ff, bias=spec.bias)
        self.down = nn.Linear(spec.d_ff, d_model, bias=spec.bias)
        self.combine = _gate(spec.activation)
        self.dropout = dropout.build(spec.dropout)
        self.joined = None  # in the place of gate and up, where the model only writes (engine.weights)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = (self.gate(x), self.up(x)) if self.joined is None else self.joined(x)
        return self.down(self.dropout(self.combine(gate, up)))


def _gate(activation: str):
    if activation == "silu":
        return kernels.swiglu
    act = ACTIVATIONS[activation]
    return lambda gate, up: act(gate) * up


def build(spec: Spec, d_model: int) -> nn.Module:
    return (GatedFeedForward if spec.gated else FeedForward)(spec, d_model)
