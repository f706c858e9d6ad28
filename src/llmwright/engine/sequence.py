"""One text on its way through the engine."""

from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Sequence:
    """`tokens`: the prompt's `n_prompt` ids and what was written after them. Keys and values of the first `computed` of
    them lie in the blocks of `table`. `number` is its age: lower came sooner. At most `limit` tokens are written.

    `copies`: so many texts begin with this prompt; it is read once, then each goes its own way. `owner` is whatever the
    caller wants to find it by.
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

    def __post_init__(self):
        self.n_prompt = self.n_prompt or len(self.tokens)

    @property
    def written(self) -> int:
        return len(self.tokens) - self.n_prompt

    @property
    def left(self) -> int:
        """Tokens that are not computed yet: one where it is being written, more where it is being read."""
        return len(self.tokens) - self.computed
