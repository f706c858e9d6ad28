"""Beams that come and go at random, against a machine that remembers what was written where: each finds itself in its
blocks, whatever room there is, and nothing is left at the end."""

import random
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scheduler import Memory, say

from llmwright.engine import searching
from llmwright.engine.blocks import BlockManager
from llmwright.engine.scheduler import Scheduler
from llmwright.engine.searching import Searching
from llmwright.engine.sequence import Group, Sequence


@dataclass
class Chance:
    """A search whose choices are drawn: they depend on its seed and on how far it is, on nothing else."""

    seed: int
    width: int
    limit: int
    running: list = field(default_factory=lambda: [SimpleNamespace(ids=[])])
    over: bool = False

    def advance(self) -> list[int]:
        length = len(self.running[0].ids)
        rng = random.Random(1000 * self.seed + length)
        parents = [rng.randrange(len(self.running)) for _ in range(rng.randint(1, self.width))]
        self.running = [SimpleNamespace(ids=[*self.running[i].ids, rng.randrange(5)]) for i in parents]
        self.over = length + 1 >= self.limit
        return parents


def alone(asked: dict, seed: int) -> list[list[int]]:
    search = Chance(seed, asked["width"], asked["limit"])
    while not search.over:
        search.advance()
    return [h.ids for h in search.running]


REQUESTS = st.lists(st.fixed_dictionaries({
    "prompt": st.lists(st.integers(0, 2), min_size=1, max_size=20), "limit": st.integers(1, 12), "width": st.integers(0, 4)}),
    min_size=1, max_size=8)


@settings(max_examples=120, deadline=None)
@given(requests=REQUESTS, more=st.integers(0, 20), size=st.sampled_from([1, 4, 5]), budget=st.sampled_from([1, 3, 64]),
       seed=st.integers(0, 99), prefix=st.booleans(), cancel=st.sampled_from([0, 0.05]))
def test_every_beam_is_what_it_would_be_alone(requests, more, size, budget, seed, prefix, cancel):
    """A width of 0: a text that is not searched."""
    def needs(asked: dict) -> int:  # blocks, alone in the cache
        shared, whole = len(asked["prompt"]) // size, -(-(len(asked["prompt"]) + asked["limit"] - 1) // size)
        return shared + max(1, asked["width"]) * (whole - shared)

    blocks = BlockManager(max(map(needs, requests)) + more, size, prefix_cache=prefix)
    scheduler, memory, rng = Scheduler(blocks, max_texts=5, step_tokens=budget), Memory(blocks), random.Random(seed)
    coming, open_, found, gone, number, steps = list(enumerate(requests)), {}, {}, set(), 0, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "advance", lambda some, logits: [some[0].advance()])
        while coming or scheduler.waiting or scheduler.running:
            steps += 1
            assert steps < 20_000, "nothing goes on any more"
            for _ in range(min(len(coming), rng.randrange(3))):
                at, asked = coming.pop(0)
                k = max(1, asked["width"])
                text = Sequence(number, list(asked["prompt"]), asked["limit"], copies=k, owner=at)
                beams = [text]
                if asked["width"]:
                    text.group = Group(k, beams)
                    search = Chance(at, k, asked["limit"])
                    open_[at] = Searching(search, beams, list(range(number, number + k)))
                number += k
                scheduler.add(text)
            plan = scheduler.plan()
            assert memory.compute(plan) <= budget
            scheduler.computed(plan)
            ready = []
            for text in (chunk.sequence for chunk in plan.chunks if chunk.last):
                if text.group:
                    open_[text.owner].logits[text.number] = torch.zeros(1)
                    ready += [text.owner] if text.owner not in ready else []
                else:
                    text.tokens.append(say(text))
                    if text.written == text.limit:
                        found[text.owner] = text.tokens
                        scheduler.remove(text)
            for at in ready:
                if open_[at].step(scheduler):
                    found[at] = [h.ids for h in open_[at].search.running]
                    drop(scheduler, open_.pop(at))
            if open_ and rng.random() < cancel:
                gone.add(at := rng.choice(list(open_)))
                drop(scheduler, open_.pop(at))
            blocks.check([text.table for text in scheduler.running])
            assert sum(len(each.beams) for each in open_.values()) == sum(
                text.group is not None for text in scheduler.running + scheduler.waiting)
    assert blocks.available == len(blocks.blocks)
    assert found.keys() | gone == set(range(len(requests)))
    for at, asked in enumerate(requests):
        if asked["width"] and at not in gone:
            assert found[at] == alone(asked, at)


def drop(scheduler: Scheduler, each: Searching) -> None:
    for beam in list(each.beams):
        scheduler.remove(beam)
