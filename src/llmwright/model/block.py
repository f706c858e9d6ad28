"""One layer: attention, then (beside an encoder) attention to its states, then feed-forward, each added to the residual
stream. Where the norms stand is the layout:

- pre: before each part (Radford et al. 2019, section 2.3; Xiong et al. 2020)
- post: after each addition (Vaswani et al. 2017, section 3.1)
- sandwich: before and after each part (Gemma 2: Riviere et al. 2024, section 2)
- parallel: attention and feed-forward side by side, behind one norm (Wang & Komatsuzaki 2021; PaLM: Chowdhery et al.
  2022, section 2) or one norm each (Falcon 40B)
"""

from torch import Tensor, nn

from . import dropout, feedforward, norms
from .attention import Attention, CrossAttention
from .cache import KVCache, Memory
from .config import ModelConfig
from .experts import MixtureOfExperts
from .positions import Geometry


class Block(nn.Module):
    """The parts, and the pre-norm layout: x + attention(norm x), then x + feed_forward(norm x). (B, T, D) → (B, T, D).

    `cross`: whether there is an encoder to attend to; its `memory` then comes with each call.
    """

    def __init__(self, config: ModelConfig, layer: int, cross: bool = False):
        super().__init__()
        self.attention_norm = norms.build(config.norm, config.d_model)
        self.attention = Attention(config.attention, config.d_model, config.norm, layer)
        self.cross_attention = None
        if cross:
            self.cross_attention_norm = norms.build(config.norm, config.d_model)
            self.cross_attention = CrossAttention(config.attention, config.d_model, layer)
        self.feed_forward_norm = norms.build(config.norm, config.d_model)
        if config.experts:
            self.feed_forward = MixtureOfExperts(config.experts, config.feed_forward, config.d_model)
        else:
            self.feed_forward = feedforward.build(config.feed_forward, config.d_model)
        self.dropout = dropout.build(config.residual_dropout)

    def forward(
        self, x: Tensor, geometry: Geometry, cache: KVCache | None = None, memory: Memory | None = None
    ) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), geometry, cache))
        if self.cross_attention is not None:
            x = x + self.dropout(self.cross_attention(self.cross_attention_norm(x), memory))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class PostNormBlock(Block):
    """norm(x + attention x), then norm(x + feed_forward x)."""

    def forward(self, x, geometry, cache=None, memory=None):
        x = self.attention_norm(x, self.dropout(self.attention(x, geometry, cache)))
        if self.cross_attention is not None:
            x = self.cross_attention_norm(x, self.dropout(self.cross_attention(x, memory)))
        return self.feed_forward_norm(x, self.dropout(self.feed_forward(x)))


class SandwichBlock(Block):
    """x + norm(attention(norm x)), then x + norm(feed_forward(norm x))."""

    def __init__(self, config: ModelConfig, layer: int, cross: bool = False):
        super().__init__(config, layer, cross)
        self.attention_post_norm = norms.build(config.norm, config.d_model)
        self.feed_forward_post_norm = norms.build(config.norm, config.d_model)

    def forward(self, x, geometry, cache=None, memory=None):
        x = x + self.attention_post_norm(self.attention(self.attention_norm(x), geometry, cache))
        return x + self.feed_forward_post_norm(self.feed_forward(self.feed_forward_norm(x)))


class ParallelBlock(Block):
    """x + attention(norm x) + feed_forward(norm x), one norm."""

    def __init__(self, config: ModelConfig, layer: int, cross: bool = False):
        super().__init__(config, layer, cross)
        del self.feed_forward_norm

    def forward(self, x, geometry, cache=None, memory=None):
        y = self.attention_norm(x)
        return x + self.dropout(self.attention(y, geometry, cache)) + self.dropout(self.feed_forward(y))


class ParallelTwoNormsBlock(Block):
    """x + attention(norm x) + feed_forward(other norm x)."""

    def forward(self, x, geometry, cache=None, memory=None):
        a = self.attention(self.attention_norm(x), geometry, cache)
        return x + self.dropout(a) + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


LAYOUTS = {
    "pre": Block, "post": PostNormBlock, "sandwich": SandwichBlock, "parallel": ParallelBlock,
    "parallel_two_norms": ParallelTwoNormsBlock,
}
