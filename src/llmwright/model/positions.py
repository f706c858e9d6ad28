"""How a transformer knows where a token stands.

A scheme may add a vector to the embeddings (`embed`), may turn queries and keys (`turn` of the `Geometry` it gives),
and may add a number to each score (`bias`). It is asked once a forward pass; all layers share the answer.

- `LearnedPositions`: a trained vector for each position (GPT-2; Vaswani et al. 2017, section 3.5, the learned variant).
- `SinusoidalPositions`: a fixed one (the same section).
- `RotaryPositions`: query and key channels turn by an angle that grows with the position, so that a score depends on
  the distance alone (Su et al. 2021).
- `ALiBiPositions`: each score loses slope · distance (Press, Smith & Lewis 2022).
- `RelativePositions`: each score gains a trained number for its bucket of distances (Raffel et al. 2020).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import kernels
from ..errors import RequestError
from . import config as spec
from .rope_scaling import frequencies


@dataclass(frozen=True)
class Geometry:
    """What attention needs to know of places: which positions a query sees, and how queries and keys are placed.

    `mask`, broadcast to (B, H, T, S): where to look when boolean, added to the scores when floating. `causal`: and
    nothing later. `window`: and at most so many positions, the query's own included. `key_bias` (H, P) float32, over a
    paged cache alone: what is added to the scores of a key at position p.
    """

    mask: Tensor | None = None
    causal: bool = True
    window: int | None = None
    key_bias: Tensor | None = None

    def turn(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """`q` (B, T, H, C) and `k` (B, T, K, C), placed: here, as they are."""
        return q, k


@dataclass(frozen=True)
class Rotation(Geometry):
    """`cos`, `sin` (B or 1, T, dim/2) float32: the angles of each position."""

    cos: Tensor | None = None
    sin: Tensor | None = None

    def turn(self, q, k):
        return self.turned(q), self.turned(k)

    def turned(self, x: Tensor) -> Tensor:
        return kernels.rotary(x, self.cos, self.sin)


@dataclass(frozen=True)
class PartialRotation(Rotation):
    """The first channels of a head turn, the others stay."""

    def turned(self, x):
        dim = 2 * self.cos.shape[-1]
        return torch.cat((kernels.rotary(x[..., :dim], self.cos, self.sin), x[..., dim:]), dim=-1)


class Scheme(nn.Module):
    """What a scheme that does nothing does."""

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """`x` (B, T, D), `positions` (B or 1, T) → (B, T, D)."""
        return x

    def geometry(self, positions: Tensor) -> Geometry:
        return Geometry()

    def bias(self, positions: Tensor, S: int, causal: bool) -> Tensor | None:
        """What is added to the scores of queries at `positions` (B or 1, T), (B or 1, H, T or 1, S) float32, or None.
        The last query stands at the last key when `causal`, and query t at key t when not."""
        return None

    def key_bias(self, P: int) -> Tensor | None:
        """The same as `bias` where it depends on the query only by what all of its keys get, which the softmax takes no
        notice of: (H, P) float32 for keys at positions 0 to P - 1. None where nothing is added."""
        return None

    def move(self, k: Tensor, by: Tensor) -> Tensor:
        """Keys (B, S, K, C) as they were made, as if each stood `by` (B, S) positions later: here as they are, since
        scores alone know of places."""
        return k

    def fill(self) -> None:
        """Compute what is not stored (after a load). Trained weights stay."""


FIXED = (
    "this model adds each position's vector to the embeddings, so its keys cannot be moved to another position: a "
    "window that slides over its own text needs rotary, ALiBi or relative positions"
)


class LearnedPositions(Scheme):
    def __init__(self, scheme: spec.Learned, d_model: int):
        super().__init__()
        self.offset = scheme.offset
        self.weight = nn.Parameter(torch.empty(scheme.n_positions, d_model))

    def embed(self, x, positions):
        return x + nn.functional.embedding(positions + self.offset, self.weight).to(x.dtype)

    def move(self, k, by):
        raise RequestError(FIXED)


class SinusoidalPositions(Scheme):
    """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos of the same, with the sines in the first half of the
    channels and the cosines in the second, as the published weights have them (Tensor2Tensor, Marian): a fixed
    reordering of channels, which the weights absorb."""

    def __init__(self, d_model: int):
        super().__init__()
        self.d_model = d_model
        self.register_buffer("frequencies", torch.empty((d_model + 1) // 2), persistent=False)
        self.fill()

    def fill(self):
        places = torch.arange(0, self.d_model, 2, dtype=torch.float64, device="cpu")
        self.frequencies = (10_000 ** (-places / self.d_model)).float().to(self.frequencies.device)

    def embed(self, x, positions):
        angles = positions[..., None].float() * self.frequencies  # (B or 1, T, D/2)
        return x + torch.cat((angles.sin(), angles.cos()), dim=-1)[..., : self.d_model].to(x.dtype)

    def move(self, k, by):
        raise RequestError(FIXED)


class RotaryPositions(Scheme):
    """Angles position · theta^(-2i/C) for the channel pairs i = 0 … C/2-1 (Su et al. 2021, section 3.2.2)."""

    def __init__(self, scheme: spec.Rotary, head_dim: int):
        super().__init__()
        self.scheme, self.dim = scheme, scheme.dim or head_dim
        self.kind = Rotation if self.dim == head_dim else PartialRotation
        self.dynamic = scheme.scaling is not None and scheme.scaling.kind == "dynamic"
        self.register_buffer("frequencies", torch.empty(self.dim // 2), persistent=False)
        self.fill()

    def fill(self):
        made, self.sharpen = frequencies(self.scheme, self.dim)
        self.frequencies = made.to(self.frequencies.device)

    def geometry(self, positions):
        turn = self.frequencies
        if self.dynamic:
            turn = frequencies(self.scheme, self.dim, int(positions.max()) + 1)[0].to(turn.device)
        angles = positions[..., None].float() * turn  # (B or 1, T, dim/2)
        cos, sin = angles.cos(), angles.sin()
        if self.sharpen != 1:
            cos, sin = cos * self.sharpen, sin * self.sharpen
        return self.kind(cos=cos, sin=sin)

    def move(self, k, by):
        angles = by[..., None].float() * self.frequencies  # two turns are one by the sum of their angles
        return self.kind(cos=angles.cos(), sin=angles.sin()).turned(k)


def _distances(T: int, S: int, causal: bool, device) -> Tensor:
    """Place of the key minus place of the query, (T, S)."""
    queries = torch.arange(T, device=device) + (S - T if causal else 0)
    return torch.arange(S, device=device) - queries[:, None]


def alibi_slopes(n_heads: int) -> Tensor:
    """2^(-8/n), 2^(-16/n), … for n heads; where n is no power of two, those of the next lower power, then every other
    one of the next higher (Press, Smith & Lewis 2022, section 3 and its code's rule)."""
    lower = 2 ** math.floor(math.log2(n_heads))
    slopes = [2 ** (-8 * (i + 1) / lower) for i in range(lower)]
    slopes += [2 ** (-4 * (2 * i + 1) / lower) for i in range(n_heads - lower)]
    return torch.tensor(slopes, dtype=torch.float32)


class ALiBiPositions(Scheme):
    def __init__(self, scheme: spec.ALiBi, n_heads: int):
        super().__init__()
        self.scheme, self.n_heads = scheme, n_heads
        self.register_buffer("slopes", torch.empty(n_heads), persistent=False)
        self.fill()

    def fill(self):
        self.slopes = alibi_slopes(self.n_heads).to(self.slopes.device)

    def bias(self, positions, S, causal):
        slopes = self.scheme.scale * self.slopes[None, :, None, None]
        return -slopes * _distances(positions.shape[1], S, causal, slopes.device).abs()

    def key_bias(self, P):
        return self.scheme.scale * self.slopes[:, None] * torch.arange(P, device=self.slopes.device)


class RoundedALiBiPositions(ALiBiPositions):
    """slope · place of the key, which to the softmax is the same as - slope · distance, but for the rounding. The place
    counts from the row's first token."""

    def bias(self, positions, S, causal):
        keys = positions  # (B or 1, S)
        if positions.shape[1] < S:
            keys = (positions[:, -1:] + torch.arange(1 - S, 1, device=positions.device)).clamp(min=0)
        made = self.slopes.bfloat16()[:, None] * keys.bfloat16()[:, None]  # (B or 1, H, S)
        return self.scheme.scale * made.float()[:, :, None]

    def key_bias(self, P):
        places = torch.arange(P, device=self.slopes.device).bfloat16()
        return self.scheme.scale * (self.slopes.bfloat16()[:, None] * places).float()


class RelativePositions(Scheme):
    """Half of the buckets hold one distance each, the others grow with its logarithm up to `max_distance`; without
    causality half of all are for keys after the query (Raffel et al. 2020, section 2.1)."""

    def __init__(self, scheme: spec.Relative, n_heads: int):
        super().__init__()
        self.scheme = scheme
        self.weight = nn.Parameter(torch.empty(scheme.n_buckets, n_heads))

    def bias(self, positions, S, causal):
        buckets = self.buckets(_distances(positions.shape[1], S, causal, self.weight.device), causal)  # (T, S)
        return self.weight[buckets].permute(2, 0, 1)[None].float()  # (1, H, T, S)

    def buckets(self, distances: Tensor, causal: bool) -> Tensor:
        n, furthest = self.scheme.n_buckets, self.scheme.max_distance
        first = torch.zeros_like(distances)
        if causal:
            distance = (-distances).clamp(min=0)
        else:
            n //= 2
            first, distance = (distances > 0) * n, distances.abs()
        exact = n // 2
        far = torch.log(distance.clamp(min=1).float() / exact) / math.log(furthest / exact) * (n - exact)
        far = (exact + far.long()).clamp(max=n - 1)
        return first + distance.where(distance < exact, far)


def build(scheme: spec.Positions, d_model: int, attention: spec.Attention) -> Scheme:
    if isinstance(scheme, spec.Learned):
        return LearnedPositions(scheme, d_model)
    if isinstance(scheme, spec.Sinusoidal):
        return SinusoidalPositions(d_model)
    if isinstance(scheme, spec.Rotary):
        return RotaryPositions(scheme, attention.head_dim)
    if isinstance(scheme, spec.ALiBi):
        return (RoundedALiBiPositions if scheme.rounded else ALiBiPositions)(scheme, attention.n_heads)
    return RelativePositions(scheme, attention.n_heads)

