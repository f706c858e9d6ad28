"""The model's side of a step: a plan in, logits out."""

import torch
from torch import Tensor

from ..model.decoder import Decoder
from ..model.paged import PagedCache, Placement
from .scheduler import Plan


class Runner:
    """Owns the paged cache, `n_blocks` of `size` positions, and computes what a scheduler plans."""

    def __init__(self, model: Decoder, n_blocks: int, size: int):
        self.model, self.size = model.eval(), size
        self.cache = PagedCache(model.config, n_blocks, size, dtype=model.dtype, device=model.device)

    @torch.inference_mode()
    def run(self, plan: Plan) -> Tensor:
        """Logits (L, V) float32 of what comes next, for each of the plan's chunks that reach the end of their texts."""
        self.cache.copy(plan.copies)
        ids, rows, positions, slots, ends = [], [], [], [], []
        for row, chunk in enumerate(plan.chunks):
            table, start, end = chunk.sequence.table, chunk.start, chunk.end
            ids += chunk.sequence.tokens[start:end]
            rows += [row] * (end - start)
            positions += range(start, end)
            slots += [table[p // self.size] * self.size + p % self.size for p in range(start, end)]
            if chunk.last:
                ends.append(len(ids) - 1)
        longest = max(len(chunk.sequence.table) for chunk in plan.chunks)
        tables = [chunk.sequence.table + [0] * (longest - len(chunk.sequence.table)) for chunk in plan.chunks]

        def tensor(values: list, dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=self.model.device)

        places = tensor(positions, torch.int32)
        self.cache.placement = Placement(
            tensor(tables, torch.int32), tensor(rows, torch.int32), places, tensor(slots, torch.int64)
        )
        states = self.model.hidden(tensor([ids], torch.int64), positions=places[None], cache=self.cache)[0]  # (N, D)
        self.states = states  # of all the step's tokens: `LLM` scores prompts by them
        if not ends:  # prompts that go on: nothing comes next yet, and the head stays where it is
            return states.new_empty(0, self.model.config.vocab_size, dtype=torch.float32)
        return self.model.logits(states[ends])
