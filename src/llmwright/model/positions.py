"""How a transformer knows where a token stands.

A scheme may add a vector to the embeddings (`embed`), and may give the attention layers something to use on queries,
keys and scores (`geometry`, computed once a forward pass and shared by all layers). Schemes of this file:

- `LearnedPositions`: a trained vector for each position (GPT-2; Vaswani et al. 2017, section 3.5, the learned variant).
- `RotaryPositions`: query and key channels turn by an angle that grows with the position, so that a score depends on
  the distance alone (Su et al. 2021).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import kernels
from .config import Learned, Rotary


@dataclass(frozen=True)
class Geometry:
    """What positions mean to attention: this one, nothing."""

    def turn(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """`q` (B, T, H, C) and `k` (B, T, K, C), placed."""
        return q, k


@dataclass(frozen=True)
class Rotation(Geometry):
    """`cos`, `sin` (B or 1, T, C/2) float32: the angles of each position."""

    cos: Tensor
    sin: Tensor

    def turn(self, q, k):
        return kernels.rotary(q, self.cos, self.sin), kernels.rotary(k, self.cos, self.sin)


class LearnedPositions(nn.Module):
    def __init__(self, spec: Learned, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(spec.n_positions, d_model))

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """`x` (B, T, D), `positions` (B or 1, T) → (B, T, D)."""
        return x + nn.functional.embedding(positions, self.weight).to(x.dtype)

    def geometry(self, positions: Tensor) -> Geometry:
        return Geometry()


class RotaryPositions(nn.Module):
    """Angles position · theta^(-2i/C) for the channel pairs i = 0 … C/2-1 (Su et al. 2021, section 3.2.2)."""

    def __init__(self, spec: Rotary, head_dim: int):
        super().__init__()
        frequencies = spec.theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        self.register_buffer("frequencies", frequencies, persistent=False)  # (C/2,)

    def embed(self, x, positions):
        return x

    def geometry(self, positions: Tensor) -> Rotation:
        angles = positions[..., None].float() * self.frequencies  # (B or 1, T, C/2)
        return Rotation(angles.cos(), angles.sin())


def build(spec: Learned | Rotary, d_model: int, head_dim: int) -> nn.Module:
    return LearnedPositions(spec, d_model) if isinstance(spec, Learned) else RotaryPositions(spec, head_dim)
