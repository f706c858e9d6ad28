"""A stack of blocks: embeddings in, states out. A decoder is one, an encoder is one, an encoder-decoder has two."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import dropout, norms, positions as position_schemes
from .block import LAYOUTS
from .cache import KVCache, Memory
from .config import ModelConfig
from .paged import PagedCache
from .positions import Geometry


class Stack(nn.Module):
    """`causal`: whether a position sees only what is before it. `cross`: whether there is an encoder to attend to.

    `compute_dtype` is what the blocks compute in. `activation_checkpointing` makes the backward pass recompute each block
    instead of keeping its activations (Chen et al. 2016).
    """

    def __init__(self, config: ModelConfig, *, causal: bool, cross: bool = False, n_layers: int | None = None):
        super().__init__()
        self.causal, self.compute_dtype, self.activation_checkpointing = causal, torch.float32, False
        self.context = config.context
        self.tape = None  # what the blocks compute, as one list of operations, where the model only writes (engine.tape)
        n_layers = config.n_layers if n_layers is None else n_layers
        d_model = config.d_model
        self.positions = position_schemes.build(config.positions, d_model, config.attention)
        self.local_positions = None
        if config.local_positions:
            self.local_positions = position_schemes.build(config.local_positions, d_model, config.attention)
        self.embedding_norm = norms.build(config.norm, d_model) if config.embedding_norm else nn.Identity()
        self.embedding_dropout = dropout.build(config.embedding_dropout)
        block = LAYOUTS[config.residual]
        self.blocks = nn.ModuleList(block(config, layer, cross) for layer in range(n_layers))
        self.norm = nn.Identity() if config.residual == "post" else norms.build(config.norm, d_model)
        self.windows = config.windows or (None,) * n_layers  # of each layer

    def run(
        self, x: Tensor, *, positions: Tensor | None = None, segments: Tensor | None = None,
        mask: Tensor | None = None, cache: KVCache | PagedCache | None = None, memory: Memory | None = None,
    ) -> Tensor:
        """Embeddings `x` (B, T, D) → states (B, T, D) in `compute_dtype`, after the last norm.

        `positions` (B or 1, T) default to 0, 1, …, going on after the cache. `segments` (B, T): tokens see only
        their own segment's (documents packed into one row). `mask`: as in `kernels.attention`, on top of the causal
        one, for padding (B, 1, 1, S).
        """
        T, past = x.shape[1], 0 if cache is None else cache.length
        if positions is None:
            positions = torch.arange(past, past + T, device=x.device)[None]  # (1, T)
        if segments is not None:
            mask = segments[:, None, :, None] == segments[:, None, None, :]  # (B, 1, T, T)
        x = self.positions.embed(x.to(self.compute_dtype), positions)
        x = self.embedding_dropout(self.embedding_norm(x))
        if self.tape is not None and cache is not None and cache.paged and self.tape.takes(x):
            return self.norm(self.tape.run(x, positions, cache))
        seen = self.geometries(positions, mask, past + T, paged=cache is not None and cache.paged)
        for block, window in zip(self.blocks, self.windows):
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, seen[window], cache, memory, use_reentrant=False)
            else:
                x = block(x, seen[window], cache, memory)
        return self.norm(x)

    def geometries(
        self, positions: Tensor, mask: Tensor | None, S: int, paged: bool = False
    ) -> dict[int | None, Geometry]:
        """What each kind of layer, by its window, needs to know of places. `paged`: where the keys are in blocks, each of
        a place of its own."""
        made = {}
        for window in dict.fromkeys(self.windows):
            scheme = self.local_positions if window and self.local_positions is not None else self.positions
            places = scheme.geometry(positions)
            if paged:
                made[window] = replace(places, window=window, key_bias=scheme.key_bias(self.context))
            else:
                bias = scheme.bias(positions, S, self.causal)
                made[window] = replace(places, causal=self.causal, window=window, mask=_together(mask, bias))
        return made

    @torch.no_grad()
    def slide(self, cache: KVCache, places: Tensor, by: Tensor) -> None:
        """Keep in each row of the cache only the positions at `places` (B, S), and move each of them by `by` (B, S):
        -3 is three positions earlier. Raises RequestError where the position scheme does not allow that."""
        cache.take(places)
        for keys, window in zip(cache.keys, self.windows):
            scheme = self.local_positions if window and self.local_positions is not None else self.positions
            keys[:, : cache.length] = scheme.move(keys[:, : cache.length], by)

    def fill_positions(self) -> None:
        """Compute the position tables that are not stored (after a load)."""
        for module in (self.positions, self.local_positions):
            if module is not None:
                module.fill()


def _together(mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """A mask and what is added to the scores, as one."""
    if mask is None or bias is None:
        return bias if mask is None else mask
    return bias.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else bias + mask
