"""What the three kinds of transformer share: a table of embeddings, a head, and how their weights are held."""

import torch
from torch import Tensor, nn

from ..errors import RequestError
from .config import ModelConfig
from .head import Head


class Transformer(nn.Module):
    """Norms stay in float32, and in training embedding tables and head too; `dtype` is what the blocks compute in, the
    dtype of their matrices (`set_dtype`). `stacks` are the model's one or two stacks of blocks. `steady`: what is computed
    for a text does not depend, to the bit, on what is computed beside it (`engine.weights`)."""

    config: ModelConfig
    steady = False
    weights = "float"  # what its matrices are held in
    held = 0  # parameters that are held in another form (engine.weights)
    embed: nn.Embedding
    head: Head | None

    @property
    def stacks(self) -> list:
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        return self.embed.weight.device

    def check_whole(self) -> None:
        """Raises RequestError where the matrices are held in another form (`engine.weights`)."""
        if self.held:
            raise RequestError("this model's matrices are held for writing: load it again, without weights or deterministic")

    @property
    def size(self) -> int:
        """Parameters."""
        return sum(p.numel() for p in self.parameters()) + self.held

    @property
    def dtype(self) -> torch.dtype:
        return self.stacks[0].compute_dtype

    @property
    def head_weight(self) -> Tensor:
        """(V, D): the rows that states are compared with."""
        return self.embed.weight if self.head.weight is None else self.head.weight

    def embeddings(self, input_ids: Tensor) -> Tensor:
        """`input_ids` (B, T) int64 → (B, T, D)."""
        x = self.embed(input_ids).float()
        return x if self.config.embedding_scale == 1 else x * self.config.embedding_scale

    def logits(self, hidden: Tensor) -> Tensor:
        """States (…, D) → (…, V) float32."""
        return self.head.logits(hidden, self.head_weight)

    def cross_entropy(self, hidden: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The sum of -log p(target) in nats, float32. `hidden` (…, D), `targets` (…), -100 where there is none;
        `label_smoothing` as in `kernels.linear_cross_entropy`."""
        return self.head.cross_entropy(hidden.flatten(0, -2), self.head_weight, targets.flatten(), label_smoothing)

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """-log p(target) of each position, in nats, shaped as `targets`, without gradients; 0 where it is -100."""
        flat = self.head.token_losses(hidden.flatten(0, -2), self.head_weight, targets.flatten())
        return flat.view(targets.shape)

    def auxiliary_loss(self) -> Tensor | None:
        """The routers' losses of the last forward pass in training, the mean over the layers; None without experts."""
        losses = [
            block.feed_forward.auxiliary_loss for stack in self.stacks for block in stack.blocks
            if getattr(block.feed_forward, "auxiliary_loss", None) is not None
        ]
        return torch.stack(losses).mean() if losses else None

    @property
    def all_blocks(self) -> list[nn.Module]:
        return [block for stack in self.stacks for block in stack.blocks]

    def matrices(self) -> dict[str, nn.Parameter]:
        """The blocks' weight matrices by name: what Muon optimizes and what low precision holds."""
        inside = {id(p) for block in self.all_blocks for p in block.parameters()}
        return {name: p for name, p in self.named_parameters() if p.ndim == 2 and id(p) in inside}

    def set_dtype(self, dtype: torch.dtype, tables: bool = False) -> "Transformer":
        """Hold the blocks' matrices and their biases in `dtype` and compute in it.

        `tables`: the rows of embeddings and head too. They are read in `dtype` in any case; held so, a generated token
        does not wait for the whole vocabulary's rows to be converted. For a model that is not trained.
        """
        if tables:
            self.embed.to(dtype)
            if self.head is not None and self.head.weight is not None:
                self.head.weight.data = self.head.weight.data.to(dtype)
        for stack in self.stacks:
            stack.compute_dtype = dtype
            for module in stack.blocks.modules():
                if isinstance(module, nn.Linear):
                    module.to(dtype)
        return self

    def set_activation_checkpointing(self, on: bool) -> None:
        """Whether the backward pass computes each block again instead of keeping its activations."""
        for stack in self.stacks:
            stack.activation_checkpointing = on

    def fill(self) -> None:
        """Compute the tables that are not stored (after a load)."""
        for stack in self.stacks:
            stack.fill_positions()
