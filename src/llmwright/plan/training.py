"""What a training run does, as far as its costs depend on it."""

from dataclasses import dataclass

from ..errors import RequestError
from ..model.config import ModelConfig
from .shape import Shape, shape_of


@dataclass(frozen=True)
class Phase:
    """`share` of the steps, with micro-batches of `batch` rows of `context` tokens."""

    share: float
    context: int
    batch: int


@dataclass(frozen=True)
class Training:
    """`tokens` to train on (None: not known yet), or `seconds` to train for; the lesser of the two ends the run.

    A micro-batch's rows and tokens come from `phases`; `accumulate` of them make a step on each of `n_devices`.
    `precision` is "float32", "bfloat16" or "auto": the faster one on the device.
    """

    tokens: float | None
    phases: tuple[Phase, ...]
    accumulate: int = 1
    seconds: float | None = None
    precision: str = "auto"
    optimizer: str = "adamw"
    activation_checkpointing: bool = False
    n_devices: int = 1

    def __post_init__(self):
        for name, value in (("tokens", self.tokens), ("seconds", self.seconds)):
            if value is not None and not 0 < value <= 1e18:
                raise RequestError(f"{name} is {value:,.6g}; it must be more than 0 and at most 1e18")
        for phase in self.phases:
            for name in ("batch", "context"):
                if not 1 <= getattr(phase, name) <= 10**8:
                    raise RequestError(f"{name} is {getattr(phase, name)}; it must be from 1 to {10**8:,}")
        for name in ("accumulate", "n_devices"):
            if not 1 <= getattr(self, name) <= 10**7:
                raise RequestError(f"{name} is {getattr(self, name)}; it must be from 1 to {10**7:,}")

    @property
    def tokens_per_step(self) -> float:
        """On average over the phases."""
        rows = sum(p.share * p.batch * p.context for p in self.phases)
        return rows * self.accumulate * self.n_devices

    @property
    def largest(self) -> Phase:
        """The phase with the most tokens in a micro-batch: the one that decides the memory."""
        return max(self.phases, key=lambda p: p.batch * p.context)


def training(tokens: float | None = None, batch: int = 1, context: int = 1024, **settings) -> Training:
    """A run with one batch shape throughout."""
    return Training(tokens, (Phase(1.0, context, batch),), **settings)


def from_recipe(train, config: ModelConfig | Shape, data_tokens: float | None = None) -> Training:
    """The run that a recipe's `train` section (`recipe.Train`) describes.

    `data_tokens`: tokens of the training text, if known, for a run measured in epochs.
    """
    first = (0.0, train.context or shape_of(config).context, train.batch)
    marks = [first, *(tuple(mark) for mark in train.growth)]
    ends = [mark[0] for mark in marks[1:]] + [1.0]
    phases = tuple(Phase(end - start, context, batch)
                   for (start, context, batch), end in zip(marks, ends) if end > start)
    settings = {
        "accumulate": train.accumulate,
        "seconds": train.max_minutes * 60 if train.max_minutes else None,
        "precision": train.precision,
        "optimizer": train.optimizer.name,
        "activation_checkpointing": train.activation_checkpointing,
    }
    run = Training(None, phases, **settings)
    ends = []
    if train.steps:
        ends.append(train.steps * run.tokens_per_step)
    if train.epochs and data_tokens:
        ends.append(train.epochs * data_tokens)
    return Training(min(ends) if ends else None, phases, **settings)
