"""The decoder-only transformer: ids → embeddings → blocks → norm → logits (Radford et al. 2018)."""

from torch import Tensor, nn

from .cache import KVCache
from .config import ModelConfig
from .head import Head
from .stack import Stack
from .transformer import Transformer


class Decoder(Transformer, Stack):
    """`hidden(ids)` gives the last layer's states, `model(ids)` the logits."""

    def __init__(self, config: ModelConfig):
        Stack.__init__(self, config, causal=True)
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.head = Head(config)

    @property
    def stacks(self) -> list[Stack]:
        return [self]

    def hidden(
        self, input_ids: Tensor, *, positions: Tensor | None = None, segments: Tensor | None = None,
        mask: Tensor | None = None, cache: KVCache | None = None,
    ) -> Tensor:
        """`input_ids` (B, T) int64 → states (B, T, D); keywords as in `Stack.run`."""
        return self.run(self.embeddings(input_ids), positions=positions, segments=segments, mask=mask, cache=cache)

    def forward(self, input_ids: Tensor, **kwargs) -> Tensor:
        """`input_ids` (B, T) → logits (B, T, V) float32; keywords as in `hidden`."""
        return self.logits(self.hidden(input_ids, **kwargs))
