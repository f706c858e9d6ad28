"""Attention: each position asks (query) what others offer (key) and takes a mixture of what they hold (value), in several
heads at once (Vaswani et al. 2017, section 3.2); heads may share keys and values in groups (Ainslie et al. 2023). The
others are the same sequence (`Attention`) or an encoder's states (`CrossAttention`). The product of scores, softmax and
weighted sum is `kernels.attention`."""

from torch import Tensor, nn

from .. import kernels
from .cache import KVCache, Memory
from .config import Attention as Spec, Norm
from .norms import RMSNorm
from .paged import PagedCache
from .positions import Geometry


class Attention(nn.Module):
    def __init__(self, spec: Spec, d_model: int, norm: Norm, layer: int):
        super().__init__()
        self.spec, self.layer = spec, layer
        self.query = nn.Linear(d_model, spec.n_heads * spec.head_dim, bias=spec.qkv_bias)
        self.key = nn.Linear(d_model, spec.n_kv_heads * spec.head_dim, bias=spec.qkv_bias)
        self.value = nn.Linear(d_model, spec.n_kv_heads * spec.head_dim, bias=spec.qkv_bias)
        self.out = nn.Linear(spec.n_heads * spec.head_dim, d_model, bias=spec.out_bias)
        self.query_norm = RMSNorm(spec.head_dim, norm.eps) if spec.qk_norm else nn.Identity()
        self.key_norm = RMSNorm(spec.head_dim, norm.eps) if spec.qk_norm else nn.Identity()
        self.joined = None  # in the place of query, key and value, where the model only writes (engine.weights)

    def forward(self, x: Tensor, geometry: Geometry, cache: KVCache | PagedCache | None = None) -> Tensor:
        """`x` (B, T, D) → (B, T, D)."""
        q, k, v = self.project(x, geometry)
        if cache is not None and cache.paged:
            y = cache.attend(
                self.layer, q, k, v, scale=self.spec.scale, window=geometry.window, softcap=self.spec.softcap,
                key_bias=geometry.key_bias,
            )
            return self.out(y.flatten(2))
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # (B, S, K, C): all positions so far
        y = kernels.attention(
            q, k, v, mask=geometry.mask, causal=geometry.causal, window=geometry.window, scale=self.spec.scale,
            softcap=self.spec.softcap, dropout=self.spec.dropout if self.training else 0.0,
        )  # (B, T, H, C)
        return self.out(y.flatten(2))

    def project(self, x: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor, Tensor]:
        """`x` (B, T, D) → queries (B, T, H, C), keys and values (B, T, K, C), placed."""
        B, T, _ = x.shape
        C = self.spec.head_dim
        q, k, v = (self.query(x), self.key(x), self.value(x)) if self.joined is None else self.joined(x)
        q = self.query_norm(q.view(B, T, -1, C))  # (B, T, H, C)
        k = self.key_norm(k.view(B, T, -1, C))  # (B, T, K, C)
        v = v.view(B, T, -1, C)  # (B, T, K, C)
        q, k = geometry.turn(q, k)
        return q, k, v


class CrossAttention(nn.Module):
    """Queries of the decoder, keys and values of the encoder's states (Vaswani et al. 2017, section 3.2.3)."""

    def __init__(self, spec: Spec, d_model: int, layer: int):
        super().__init__()
        self.spec, self.layer = spec, layer
        self.query = nn.Linear(d_model, spec.n_heads * spec.head_dim, bias=spec.qkv_bias)
        self.key = nn.Linear(d_model, spec.n_kv_heads * spec.head_dim, bias=spec.qkv_bias)
        self.value = nn.Linear(d_model, spec.n_kv_heads * spec.head_dim, bias=spec.qkv_bias)
        self.out = nn.Linear(spec.n_heads * spec.head_dim, d_model, bias=spec.out_bias)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """`x` (B, T, D) → (B, T, D). Several texts of one source may stand in rows beside each other (beams): there are
        then as many times fewer rows of memory, and a source's texts are its queries."""
        B, T, _ = x.shape
        k, v = self.keys_and_values(memory)  # (sources, S, K, C)
        q = self.query(x).view(len(k), B * T // len(k), -1, self.spec.head_dim)  # (sources, queries, H, C)
        y = kernels.attention(
            q, k, v, mask=memory.mask, scale=self.spec.scale, dropout=self.spec.dropout if self.training else 0.0
        )  # (sources, queries, H, C)
        return self.out(y.reshape(B, T, -1))

    def keys_and_values(self, memory: Memory) -> tuple[Tensor, Tensor]:
        if self.layer in memory.kept:
            return memory.kept[self.layer]
        B, S, _ = memory.states.shape
        made = tuple(matrix(memory.states).view(B, S, -1, self.spec.head_dim) for matrix in (self.key, self.value))
        if memory.keep:
            memory.kept[self.layer] = made
        return made
