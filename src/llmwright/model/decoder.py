"""The decoder-only transformer: ids → embeddings → blocks → norm → logits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import norms, positions as position_schemes
from .block import Block
from .cache import KVCache
from .config import ModelConfig


class Decoder(nn.Module):
    """`hidden(ids)` gives the last layer's states, `model(ids)` the logits.

    The embedding table and the norms stay in float32; `dtype` is what the blocks compute in, the dtype of their
    matrices (`set_dtype`). `activation_checkpointing` makes the backward pass recompute each block instead of
    keeping its activations (Chen et al. 2016).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = position_schemes.build(config.positions, config.d_model, config.attention.head_dim)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout) if config.embedding_dropout else nn.Identity()
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = norms.build(config.norm, config.d_model)
        self.head = None if config.tie_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.dtype = torch.float32
        self.activation_checkpointing = False

    @property
    def head_weight(self) -> Tensor:
        """(V, D): the rows that hidden states are compared with."""
        return self.embed.weight if self.head is None else self.head.weight

    @property
    def device(self) -> torch.device:
        return self.embed.weight.device

    def matrices(self) -> dict[str, nn.Parameter]:
        """The blocks' weight matrices by name: what Muon optimizes and what low precision holds."""
        return {n: p for n, p in self.blocks.named_parameters(prefix="blocks") if p.ndim == 2}

    def set_dtype(self, dtype: torch.dtype) -> "Decoder":
        """Hold the blocks' matrices and their biases in `dtype` and compute in it."""
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)
        self.dtype = dtype
        return self

    def hidden(
        self, input_ids: Tensor, *, positions: Tensor | None = None, segments: Tensor | None = None,
        mask: Tensor | None = None, cache: KVCache | None = None,
    ) -> Tensor:
        """`input_ids` (B, T) int64 → (B, T, D) in `dtype`, after the last norm.

        `positions` (B or 1, T) default to 0, 1, …, going on after the cache. `segments` (B, T): tokens see only
        their own segment's (documents packed into one row). `mask`: as in `kernels.attention`, on top of the causal
        one, for padding (B, 1, 1, S).
        """
        if positions is None:
            start = 0 if cache is None else cache.length
            positions = torch.arange(start, start + input_ids.shape[1], device=input_ids.device)[None]  # (1, T)
        if segments is not None:
            mask = segments[:, None, :, None] == segments[:, None, None, :]  # (B, 1, T, T)
        x = self.embed(input_ids).to(self.dtype)  # (B, T, D)
        x = self.embedding_dropout(self.positions.embed(x, positions))
        geometry = self.positions.geometry(positions)
        for block in self.blocks:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, geometry, mask, cache, use_reentrant=False)
            else:
                x = block(x, geometry, mask, cache)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, D) → (…, V) float32."""
        return F.linear(hidden, self.head_weight.to(hidden.dtype)).float()

    def forward(self, input_ids: Tensor, **kwargs) -> Tensor:
        """`input_ids` (B, T) → logits (B, T, V) float32; keywords as in `hidden`."""
        return self.logits(self.hidden(input_ids, **kwargs))


def new(config: ModelConfig, seed: int = 0) -> Decoder:
    """A model with new weights by the family's initialization (`ModelConfig.init_std`, `init_residual_scale`):
    normal matrices and embeddings, the two matrices of a block that write to the residual stream scaled down, norms 1,
    biases 0. The same seed gives the same weights."""
    model = Decoder(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim < 2:
                p.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            elif name.endswith(("attention.out.weight", "feed_forward.down.weight")):
                p.normal_(0.0, config.init_std, generator=generator).mul_(config.init_residual_scale)
            else:
                p.normal_(0.0, config.init_std, generator=generator)
    return model
