"""The encoder-decoder transformer: one stack reads the source, the other writes the target and attends to what the first
made of it (Vaswani et al. 2017)."""

from torch import Tensor, nn

from .cache import KVCache, Memory
from .config import ModelConfig
from .head import Head
from .stack import Stack
from .transformer import Transformer


class EncoderDecoder(Transformer):
    """`encode(source)` gives a `Memory`, `hidden(target, memory)` the decoder's states. The two share one table of
    embeddings."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Stack(config, causal=False, n_layers=config.n_encoder_layers)
        self.decoder = Stack(config, causal=True, cross=True)
        self.head = Head(config)

    @property
    def stacks(self) -> list[Stack]:
        return [self.encoder, self.decoder]

    def encode(self, source_ids: Tensor, mask: Tensor | None = None, *, keep: bool = False) -> Memory:
        """`source_ids` (B, S) int64; `mask` (B, S) bool is False on padding. `keep`: for generation, see `Memory`."""
        mask = None if mask is None else mask[:, None, None]  # (B, 1, 1, S)
        return Memory(self.encoder.run(self.embeddings(source_ids), mask=mask), mask, keep)

    def hidden(self, input_ids: Tensor, memory: Memory, *, cache: KVCache | None = None, **kwargs) -> Tensor:
        """Target so far `input_ids` (B, T) int64, which begins with the start token → states (B, T, D); keywords as in
        `Stack.run`."""
        return self.decoder.run(self.embeddings(input_ids), memory=memory, cache=cache, **kwargs)

    def forward(self, source_ids: Tensor, input_ids: Tensor, source_mask: Tensor | None = None, **kwargs) -> Tensor:
        """→ logits (B, T, V) float32 of what follows each target position."""
        return self.logits(self.hidden(input_ids, self.encode(source_ids, source_mask), **kwargs))
