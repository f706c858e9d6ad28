"""One layer: attention, then feed-forward, each added to the residual stream, each with a norm before it
(pre-norm: Radford et al. 2019, section 2.3; Xiong et al. 2020)."""

from torch import Tensor, nn

from . import feedforward, norms
from .attention import Attention
from .cache import KVCache
from .config import ModelConfig
from .positions import Geometry


class Block(nn.Module):
    """x + attention(norm x), then x + feed_forward(norm x): (B, T, D) → (B, T, D)."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.attention_norm = norms.build(config.norm, config.d_model)
        self.attention = Attention(config.attention, config.d_model, config.norm, layer)
        self.feed_forward_norm = norms.build(config.norm, config.d_model)
        self.feed_forward = feedforward.build(config.feed_forward, config.d_model)
        self.dropout = nn.Dropout(config.residual_dropout) if config.residual_dropout else nn.Identity()

    def forward(
        self, x: Tensor, geometry: Geometry, mask: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), geometry, mask, cache))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
