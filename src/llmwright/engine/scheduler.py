"""Who is computed next: in each step, all texts that are being written and pieces of those that are being read.

Continuous batching (Yu et al. 2022, "Orca"): a text joins the batch as soon as there is room and leaves it when it is
done, step by step. Chunked prefill (Agrawal et al. 2023, "Sarathi"): a long prompt is read in pieces beside the texts
that are being written, `step_tokens` in all, so that nobody waits for it. When blocks run out the youngest text gives
its own back and is read again later (recompute, Kwon et al. 2023, section 4.5); the oldest always goes on, so all get
to their end.
"""

from bisect import insort
from dataclasses import dataclass, field

from ..errors import RequestError
from .blocks import BlockManager, NoRoom
from .sequence import Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """Positions `start` to `end` of a text are computed in this step."""

    sequence: Sequence
    start: int
    end: int

    @property
    def n(self) -> int:
        return self.end - self.start

    @property
    def last(self) -> bool:
        """Whether the text is computed to its end then, so that its next token can be chosen."""
        return self.end == len(self.sequence.tokens)


@dataclass(slots=True)
class Plan:
    """One step: `chunks` in order of age; blocks to copy first, (from, to); who had to give up its blocks."""

    chunks: list[Chunk] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)


class Scheduler:
    """`add` texts; then, step by step: `plan()`, compute it, `computed(plan)`, and for each text whose next token was
    chosen either append the token to its tokens, or `fork` it, or `remove` it."""

    def __init__(self, blocks: BlockManager, *, max_texts: int = 64, step_tokens: int = 256):
        if max_texts < 1 or step_tokens < 1:
            raise RequestError("an engine computes at least one text and one token at a time")
        self.blocks, self.max_texts, self.step_tokens = blocks, max_texts, step_tokens
        self.waiting: list[Sequence] = []  # both by age
        self.running: list[Sequence] = []
        self.preemptions = 0  # how often a text had to give its blocks back

    def add(self, sequence: Sequence) -> None:
        """Raises RequestError for one that can never be computed here."""
        if sequence.copies > self.max_texts:
            raise RequestError(f"{sequence.copies} texts of one prompt are more than the {self.max_texts} that are "
                               "written at a time")
        positions = len(sequence.tokens) + max(sequence.limit, 1) - 1  # the last token is never fed
        room = len(self.blocks.blocks) * self.blocks.size
        wanted, answers = self.blocks.needed(positions), f"an answer of {sequence.limit:,}"
        if sequence.group:  # beams are there together, and have what is full of the prompt in common
            shared = len(sequence.tokens) // self.blocks.size
            wanted = shared + sequence.copies * (wanted - shared)
            answers = f"{sequence.copies} beams of {sequence.limit:,}"
        if wanted > len(self.blocks.blocks):
            raise RequestError(
                f"the prompt of {len(sequence.tokens):,} tokens and {answers} do not fit into the "
                f"cache of keys and values, which has room for {room:,}: ask for less, or give the cache more memory")
        insort(self.waiting, sequence, key=_age)

    def plan(self) -> Plan:
        """What to compute in this step; empty when there is nothing to do."""
        plan, left = Plan(), self.step_tokens
        for writing in (True, False):  # those that are being written first, one token each
            for sequence in list(self.running):
                if plan.preempted and sequence not in self.running:  # it, or another of its group, had to go
                    continue
                if left and sequence.left and (sequence.left == 1) == writing:
                    left -= self._place(sequence, left, plan)
        while self.waiting and left and not plan.preempted:
            sequence = self.waiting[0]
            if not self._admit(sequence):
                break
            left -= self._place(sequence, left, plan)
        plan.chunks.sort(key=lambda chunk: chunk.sequence.number)
        return plan

    def computed(self, plan: Plan) -> None:
        """The plan's positions are in their blocks now."""
        for chunk in plan.chunks:
            sequence = chunk.sequence
            sequence.computed = chunk.end
            self.blocks.remember(sequence.table, sequence.tokens, chunk.start, chunk.end)

    def fork(self, sequence: Sequence, numbers: list[int]) -> list[Sequence]:
        """More texts that go on from where this one is, with these ages; they share its blocks."""
        made = [
            Sequence(number, list(sequence.tokens), sequence.limit, owner=sequence.owner, computed=sequence.computed,
                     table=self.blocks.share(sequence.table), n_prompt=sequence.n_prompt, reused=sequence.reused,
                     group=sequence.group)
            for number in numbers
        ]
        sequence.copies = 1
        if sequence.group:
            sequence.group.texts += made
        for each in made:
            insort(self.running, each, key=_age)
        return made

    def remove(self, sequence: Sequence) -> None:
        """It is done, or nobody wants it any more; its blocks are free."""
        for place in (self.running, self.waiting):
            if sequence in place:
                place.remove(sequence)
        if sequence.group and sequence in sequence.group.texts:
            sequence.group.texts.remove(sequence)
        self.blocks.release(sequence.table)

    def _place(self, sequence: Sequence, left: int, plan: Plan) -> int:
        """Give the text blocks for its next positions and put it into the plan; returns how many positions it got. The
        youngest texts go back where blocks are short, this one too if it is the youngest."""
        end = min(len(sequence.tokens), sequence.computed + left)
        while True:
            try:
                copy = self.blocks.own(sequence.table, sequence.computed)
                if copy:
                    plan.copies.append(copy)
                self.blocks.grow(sequence.table, end)
            except NoRoom:
                youngest = self.running[-1]
                self._preempt(youngest, plan)
                if sequence not in self.running:
                    return 0
                continue
            plan.chunks.append(Chunk(sequence, sequence.computed, end))
            return end - sequence.computed

    def _preempt(self, sequence: Sequence, plan: Plan) -> None:
        """It goes back to those that wait. With it goes its group, of which the oldest waits with the bare prompt: it will
        be read once again, and forked again."""
        gone = list(sequence.group.texts) if sequence.group else [sequence]
        held = {number for each in gone for number in each.table}
        plan.chunks = [chunk for chunk in plan.chunks if chunk.sequence not in gone]
        plan.copies = [(a, b) for a, b in plan.copies if b not in held]
        for each in gone:
            self.running.remove(each)
            self.blocks.release(each.table)
        if sequence.group:
            sequence = min(gone, key=_age)
            sequence.group.texts[:] = [sequence]
            sequence.copies = sequence.group.width
            del sequence.tokens[sequence.n_prompt :]
        sequence.computed, sequence.preempted = 0, sequence.preempted + 1
        plan.preempted.append(sequence)
        self.preemptions += 1
        insort(self.waiting, sequence, key=_age)

    def _admit(self, sequence: Sequence) -> bool:
        """From waiting to running, where there is room for it and a block more for each that runs already."""
        if sum(each.copies for each in self.running) + sequence.copies > self.max_texts:
            return False
        found = self.blocks.find(sequence.tokens)
        if sequence.scored is not None:
            found = found[: sequence.scored // self.blocks.size]
        idle = sum(self.blocks.blocks[number].texts == 0 for number in found)
        wanted = self.blocks.needed(len(sequence.tokens)) - len(found) + idle
        if wanted + len(self.running) > self.blocks.available:
            return False
        self.waiting.pop(0)
        sequence.table = self.blocks.share(found)
        sequence.computed = sequence.reused = len(found) * self.blocks.size
        insort(self.running, sequence, key=_age)
        return True


def _age(sequence: Sequence) -> int:
    return sequence.number
