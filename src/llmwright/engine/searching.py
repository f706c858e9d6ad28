"""A beam search in the engine: its beams are texts of one group, which share the blocks of what they have in common.

A beam that several go on from is forked, one that nobody goes on from is dropped; a block is copied only when one of those
that share it is about to write into it. Beams may come out of several steps: the first wait for the last.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .beam import Search, advance
from .scheduler import Scheduler
from .sequence import Sequence


@dataclass
class Searching:
    """`beams`: the texts of what is running in the `search`, in that order; before it begins, and when they lost their place,
    one that has the prompt alone. `numbers`: the ages that they may have. `logits` of those that wait, by number."""

    search: Search
    beams: list[Sequence]
    numbers: list[int]
    logits: dict[int, Tensor] = field(default_factory=dict)

    def step(self, scheduler: Scheduler) -> bool:
        """Once all beams are computed, the next step of the search. Returns whether it is over. Raises Error where no token
        can be chosen."""
        running = self.search.running
        if self.beams[0].written == 0 and running[0].ids:  # they lost their place, and the prompt was read again
            parents = [0] * len(running)
        elif len(self.logits) < len(self.beams):
            self.logits = {number: row.clone() for number, row in self.logits.items()}  # not those of the whole step
            return False
        else:
            parents, = advance([self.search], torch.stack([self.logits[beam.number] for beam in self.beams]))
        self.logits.clear()
        if not self.search.over:
            self._branch(parents, scheduler)
        return self.search.over

    def _branch(self, parents: list[int], scheduler: Scheduler) -> None:
        """What is running now goes on from these of the beams."""
        beams = list(self.beams)
        for i, beam in enumerate(beams):
            if i not in parents:
                scheduler.remove(beam)
        free = iter(sorted(set(self.numbers) - {beam.number for beam in self.beams}))
        children = {}
        for i in set(parents):
            numbers = [next(free) for _ in range(parents.count(i) - 1)]
            children[i] = [beams[i], *scheduler.fork(beams[i], numbers)]
        self.beams[:] = [children[i].pop() for i in parents]
        for beam, text in zip(self.beams, self.search.running):
            beam.tokens[beam.n_prompt :] = text.ids
