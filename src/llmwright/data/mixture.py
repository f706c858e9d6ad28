"""Which source the next row comes from.

The next row is taken from the source that lacks most: the largest difference between the tokens it should have given
by now and those it has. It is deterministic and as even as whole rows allow (a source is never more than one row
ahead of its share). Tokens are counted as valid targets, so "30 % of the tokens" holds whatever the padding.
"""

from ..errors import RequestError


def shares(wanted: dict[str, float], tokens: dict[str, int], where: str) -> dict[str, float]:
    """The share of the tokens of each source, adding to 1.

    `wanted` names sources of `tokens` (their sizes). Nothing wanted: by size. If the wanted shares add to less than 1,
    the sources not named share the rest by size; otherwise they give nothing and the wanted ones are divided by their
    sum (so `{code: 3, text: 7}` works too). Raises RequestError, naming `where`, for an unknown source or no share.
    """
    for name in wanted:
        if name not in tokens:
            raise RequestError(f"{where}.{name}: there is no such source in the split; it has {', '.join(tokens)}")
    named = {name: float(share) for name, share in wanted.items()}
    if any(not 0 <= share < float("inf") for share in named.values()):
        raise RequestError(f"{where}: shares are numbers from 0 up, not {wanted}")
    rest = {name: size for name, size in tokens.items() if name not in named}
    left = max(0.0, 1 - sum(named.values()))
    if rest and left > 1e-9:
        named |= {name: left * size / sum(rest.values()) for name, size in rest.items()}
    total = sum(named.values())
    if total <= 0:
        raise RequestError(f"{where}: all shares are 0; give at least one source more")
    return {name: named.get(name, 0.0) / total for name in tokens}


class Mixture:
    """Shares over time: stage k holds from `starts[k]` (a fraction of the training) on. Counting restarts with each
    stage, so a stage does not make up for the one before it."""

    def __init__(self, tokens: dict[str, int], mixture: dict[str, float], curriculum=()):
        """`curriculum`: stages with `.start` and `.mixture`. The stage before the first start has `mixture`."""
        stages = sorted(enumerate(curriculum), key=lambda stage: stage[1].start)
        self.starts = [0.0] + [stage.start for _, stage in stages]
        self.shares = [shares(mixture, tokens, "train.mixture")]
        self.shares += [shares(stage.mixture, tokens, f"train.curriculum.{i}.mixture") for i, stage in stages]
        self.by_size = [not mixture] + [not stage.mixture for _, stage in stages]
        self.stage, self.given = 0, dict.fromkeys(tokens, 0)
        self.total = 0

    def move_to(self, progress: float) -> None:
        """Enter the stage of this fraction of the training."""
        stage = max(i for i, start in enumerate(self.starts) if start <= progress or i == 0)
        if stage != self.stage:
            self.stage, self.given, self.total = stage, dict.fromkeys(self.given, 0), 0

    def choose(self, passes: dict[str, int]) -> str:
        """The source of the next row. `passes`: how many times each source was read to its end. With shares by size
        a source that is through waits for the others, so that one epoch reads every token exactly once."""
        share = self.shares[self.stage]
        names = [name for name in share if share[name] > 0]
        if self.by_size[self.stage]:
            lowest = min(passes[name] for name in names)
            names = [name for name in names if passes[name] == lowest]
        return max(names, key=lambda name: share[name] * self.total - self.given[name])  # a tie: the first

    def count(self, name: str, tokens: int) -> None:
        """`tokens` were given by `name`."""
        self.given[name] += tokens
        self.total += tokens
