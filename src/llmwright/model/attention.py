"""Self-attention: each position asks (query) what every earlier one offers (key) and takes a mixture of what they hold
(value), in several heads at once (Vaswani et al. 2017, section 3.2); heads may share keys and values in groups
(Ainslie et al. 2023). The product of scores, softmax and weighted sum is `kernels.attention`."""

from torch import Tensor, nn

from .. import kernels
from .cache import KVCache
from .config import Attention as Spec, Norm
from .norms import RMSNorm
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

    def forward(self, x: Tensor, geometry: Geometry, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        """`x` (B, T, D) → (B, T, D). `mask` as in `kernels.attention`, on top of the causal one."""
        B, T, _ = x.shape
        C = self.spec.head_dim
        q = self.query_norm(self.query(x).view(B, T, -1, C))  # (B, T, H, C)
        k = self.key_norm(self.key(x).view(B, T, -1, C))  # (B, T, K, C)
        v = self.value(x).view(B, T, -1, C)  # (B, T, K, C)
        q, k = geometry.turn(q, k)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # (B, S, K, C): all positions so far
        dropout = self.spec.dropout if self.training else 0.0
        y = kernels.attention(q, k, v, mask=mask, causal=True, dropout=dropout)  # (B, T, H, C)
        return self.out(y.reshape(B, T, -1))
