"""One text on its way through the engine."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Group:
    """Texts that go on together or not at all: the beams of a search, at most `width`, after one prompt."""

    width: int
    texts: list[Sequence] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Sequence:
    """`tokens`: the prompt's `n_prompt` ids and what was written after them. Keys and values of the first `computed` of
    them lie in the blocks of `table`. `number` is its age: lower came sooner. At most `limit` tokens are written.

    `copies`: so many texts begin with this prompt; it is read once, then each goes its own way, or all of them as a
    `group`. `owner` is whatever the caller wants to find it by. `scored`: somebody wants to see the prompt's positions from
    here on computed, even if they could be found; None: nobody does.
    """

    number: int
    tokens: list[int]
    limit: int
    copies: int = 1
    owner: object = None
    computed: int = 0
    table: list[int] = field(default_factory=list)
    n_prompt: int = 0
    reused: int = 0  # tokens that were found in the prefix cache when it was last admitted
    preempted: int = 0  # how often its blocks were taken away
    group: Group | None = None
    scored: int | None = None

    def __post_init__(self):
        self.n_prompt = self.n_prompt or len(self.tokens)

    @property
    def written(self) -> int:
        return len(self.tokens) - self.n_prompt

    @property
    def left(self) -> int:
        """Tokens that are not computed yet: one where it is being written, more where it is being read."""
        return len(self.tokens) - self.computed
