"""Blocks and the order of work, against a machine that remembers what was written where."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmwright.engine.blocks import BlockManager, NoRoom
from llmwright.engine.scheduler import Scheduler
from llmwright.engine.sequence import Sequence
from llmwright.errors import RequestError


class Memory:
    """What a model would have written: in each place of each block, the tokens of the text up to there."""

    def __init__(self, blocks: BlockManager):
        self.blocks, self.held = blocks, {}

    def compute(self, plan) -> int:
        for a, b in plan.copies:
            for place in range(self.blocks.size):
                if (a, place) in self.held:
                    self.held[b, place] = self.held[a, place]
        for chunk in plan.chunks:
            s = chunk.sequence
            assert s.computed == chunk.start < chunk.end <= len(s.tokens)
            assert len(s.table) == self.blocks.needed(chunk.end)
            for p in range(chunk.start, chunk.end):
                number = s.table[p // self.blocks.size]
                assert self.blocks.blocks[number].texts == 1, "written into a block that others have too"
                self.held[number, p % self.blocks.size] = tuple(s.tokens[: p + 1])
        for chunk in plan.chunks:  # each text finds itself, and nobody else, in its blocks
            for p in range(chunk.end):
                found = self.held[chunk.sequence.table[p // self.blocks.size], p % self.blocks.size]
                assert found == tuple(chunk.sequence.tokens[: p + 1])
        return sum(chunk.n for chunk in plan.chunks)


def say(s: Sequence) -> int:
    """The token that "the model" writes next: a function of the text."""
    return hash((tuple(s.tokens), s.number)) % 5


def work(scheduler: Scheduler, requests: list[dict], seed: int = 0, cancel: float = 0.0) -> dict:
    """All requests to their end, coming a few at a time; {number: tokens}."""
    blocks, memory, rng = scheduler.blocks, Memory(scheduler.blocks), random.Random(seed)
    coming, done, number = list(requests), {}, 0
    steps = 0
    while coming or scheduler.waiting or scheduler.running:
        steps += 1
        assert steps < 20_000, "nothing goes on any more"
        for _ in range(rng.randrange(3)):
            if coming:
                asked = coming.pop(0)
                scheduler.add(Sequence(number, list(asked["prompt"]), asked["limit"], asked.get("copies", 1)))
                number += asked.get("copies", 1)
        before = {s.number: s.written for s in scheduler.running}
        plan = scheduler.plan()
        assert plan.chunks or not (scheduler.running or scheduler.waiting)
        assert memory.compute(plan) <= scheduler.step_tokens
        scheduler.computed(plan)
        if scheduler.running:  # the oldest always goes on
            oldest = min(scheduler.running, key=lambda s: s.number)
            assert oldest in [chunk.sequence for chunk in plan.chunks]
        for chunk in plan.chunks:
            if not chunk.last:
                continue
            s = chunk.sequence
            texts = [s, *scheduler.fork(s, list(range(s.number + 1, s.number + s.copies)))]
            for text in texts:
                text.tokens.append(say(text))
                if text.written == text.limit:
                    done[text.number] = text.tokens
                    scheduler.remove(text)
        if cancel and scheduler.running and rng.random() < cancel:
            scheduler.remove(rng.choice(scheduler.running + scheduler.waiting))
        blocks.check([s.table for s in scheduler.running])
        assert all(s.table == [] for s in scheduler.waiting)
        assert before.keys() >= {p.number for p in plan.preempted} or plan.preempted
    assert blocks.available == len(blocks.blocks)
    return done


def wanted(requests: list[dict]) -> dict:
    """The same without any engine."""
    found, number = {}, 0
    for asked in requests:
        for _ in range(asked.get("copies", 1)):
            s = Sequence(number, list(asked["prompt"]), asked["limit"])
            for _ in range(asked["limit"]):
                s.tokens.append(say(s))
            found[number], number = s.tokens, number + 1
    return found


REQUESTS = st.lists(st.fixed_dictionaries({
    "prompt": st.lists(st.integers(0, 2), min_size=1, max_size=40), "limit": st.integers(1, 20),
    "copies": st.integers(1, 3)}), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(requests=REQUESTS, n_blocks=st.integers(15, 60), size=st.sampled_from([4, 5, 16]), budget=st.sampled_from([1, 7, 64]),
       seed=st.integers(0, 99), prefix=st.booleans())
def test_every_text_is_what_it_would_be_alone(requests, n_blocks, size, budget, seed, prefix):
    scheduler = Scheduler(BlockManager(n_blocks, size, prefix_cache=prefix), max_texts=6, step_tokens=budget)
    assert work(scheduler, requests, seed) == wanted(requests)


@settings(max_examples=60, deadline=None)
@given(requests=REQUESTS, seed=st.integers(0, 99))
def test_texts_that_nobody_wants_any_more_leave_nothing(requests, seed):
    scheduler = Scheduler(BlockManager(16, 4), max_texts=6, step_tokens=9)
    done = work(scheduler, requests, seed, cancel=0.3)
    expected = wanted(requests)
    assert all(expected[number] == tokens for number, tokens in done.items())


def test_blocks_run_out_and_the_youngest_waits():
    scheduler = Scheduler(BlockManager(5, 4, prefix_cache=False), step_tokens=100)
    old, young = Sequence(0, [1] * 6, 10), Sequence(1, [2] * 5, 10)
    scheduler.add(old)
    scheduler.add(young)
    scheduler.computed(scheduler.plan())
    for _ in range(4):
        for s in (old, young):
            s.tokens.append(0)
        plan = scheduler.plan()
        scheduler.computed(plan)
    assert plan.preempted == [young] and scheduler.running == [old] and scheduler.waiting == [young]
    assert young.computed == 0 and young.table == [] and len(young.tokens) == 9  # nothing that it wrote is lost


def test_what_was_read_once_is_found_again_and_the_oldest_is_forgotten_first():
    blocks = BlockManager(6, 4)
    table: list[int] = []
    tokens = list(range(100, 112))
    blocks.grow(table, 12)
    blocks.remember(table, tokens, 0, 12)
    first = list(table)
    blocks.release(table)
    assert blocks.available == 6
    assert blocks.find(tokens) == first[:2]  # the last token has to be computed
    assert blocks.find([*tokens, 7]) == first and blocks.find([0, *tokens]) == []
    assert blocks.find([*tokens[:4], 0, *tokens[5:]]) == first[:1]
    other: list[int] = []
    blocks.grow(other, 16)  # three blocks were free; one of the known goes, the text's end first
    assert blocks.find([*tokens, 7]) == first[:2]
    with pytest.raises(NoRoom):
        blocks.grow(other, 28)
    assert len(other) == 4
    blocks.release(other)
    blocks.forget()
    assert blocks.find([*tokens, 7]) == [] and blocks.available == 6
    blocks.check([])


def test_what_can_never_fit_is_refused_at_once():
    scheduler = Scheduler(BlockManager(4, 4), max_texts=2)
    with pytest.raises(RequestError, match="prompt of 10 tokens and an answer of 8 .* room for 16"):
        scheduler.add(Sequence(0, [1] * 10, 8))
    scheduler.add(Sequence(0, [1] * 10, 7))
    with pytest.raises(RequestError, match="3 texts of one prompt"):
        scheduler.add(Sequence(1, [1], 1, copies=3))


def test_a_long_prompt_does_not_hold_up_those_that_write():
    scheduler = Scheduler(BlockManager(100, 4), step_tokens=8)
    writing = Sequence(0, [1, 2, 3], 30)
    scheduler.add(writing)
    scheduler.computed(scheduler.plan())
    scheduler.add(Sequence(1, [5] * 100, 5))
    for _ in range(10):
        writing.tokens.append(0)
        plan = scheduler.plan()
        scheduler.computed(plan)
        assert [(c.sequence.number, c.n) for c in plan.chunks] == [(0, 1), (1, 7)]
