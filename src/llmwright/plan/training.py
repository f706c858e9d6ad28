"""What a training run does, as far as its costs depend on it."""

from dataclasses import dataclass, replace

from ..errors import RequestError
from ..model.config import ModelConfig
from .shape import Shape, shape_of


@dataclass(frozen=True)
class Phase:
    """`share` of the run, with micro-batches of `batch` rows of `context` tokens; of an encoder-decoder these are the
    source's, and `target` are its own."""

    share: float
    context: int
    batch: int
    target: int | None = None

    @property
    def tokens(self) -> int:
        """In a micro-batch, on both sides."""
        return self.batch * (self.context + (self.target or 0))

    def of(self, context: int | None, batch: int | None) -> "Phase":
        """The same with other rows; the target keeps its length relative to the source."""
        context = context or self.context
        target = self.target and max(1, round(self.target * context / self.context))
        return replace(self, context=context, batch=batch or self.batch, target=target)


@dataclass(frozen=True)
class Training:
    """How long, and in what pieces.

    `steps`, `tokens` (in all) and `seconds`: the first that is reached ends the run; all None: not known yet.
    Micro-batches come from `phases`; `accumulate` of them make a step on each of `n_devices`. `packed`: rows hold
    several documents, told apart by a mask. `precision` is "float32", "bfloat16" or "auto": the faster on the device.
    `head_share`: of the tokens that the objective predicts.
    """

    steps: int | None = None
    tokens: float | None = None
    seconds: float | None = None
    phases: tuple[Phase, ...] = (Phase(1.0, 1024, 1),)
    accumulate: int = 1
    precision: str = "auto"
    optimizer: str = "adamw"
    activation_checkpointing: bool = False
    packed: bool = False
    n_devices: int = 1
    head_share: float = 1.0

    def __post_init__(self):
        for name in ("steps", "tokens", "seconds"):
            value = getattr(self, name)
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
    def tokens_per_step(self) -> tuple[int, ...]:
        """On all devices, phase by phase."""
        return tuple(p.tokens * self.accumulate * self.n_devices for p in self.phases)

    @property
    def largest(self) -> Phase:
        """The phase with the most tokens in a micro-batch: the one that decides the memory."""
        return max(self.phases, key=lambda p: (p.tokens, p.context))

    def spend(self, tokens_per_second: list[float]) -> list[float] | None:
        """Tokens by phase when phase i runs at `tokens_per_second[i]`; None when nothing ends the run.

        A phase's share is of the steps, the tokens or the seconds, whichever ends the run: the loop's progress.
        """
        ends = []
        if self.steps is not None:
            ends.append([p.share * self.steps * n for p, n in zip(self.phases, self.tokens_per_step)])
        if self.tokens is not None:
            ends.append([p.share * self.tokens for p in self.phases])
        if self.seconds is not None:
            ends.append([p.share * self.seconds * rate for p, rate in zip(self.phases, tokens_per_second)])
        return min(ends, key=lambda n: sum(t / rate for t, rate in zip(n, tokens_per_second)), default=None)


def training(tokens: float | None = None, batch: int = 1, context: int = 1024, **settings) -> Training:
    """A run with one batch shape throughout."""
    return Training(tokens=tokens, phases=(Phase(1.0, context, batch),), **settings)


def from_recipe(train, config: ModelConfig | Shape, data_tokens: float | None = None) -> Training:
    """The run that a recipe's `train` section (`recipe.Train`) describes.

    `data_tokens`: tokens of the training text, if known, for a run measured in epochs.
    """
    marks = [(0.0, train.context or shape_of(config).context, train.batch), *(tuple(mark) for mark in train.growth)]
    ends = [mark[0] for mark in marks[1:]] + [1.0]
    if train.batch_tokens:  # a side
        marks = [(start, context, max(1, train.batch_tokens // context)) for start, context, _ in marks]
    return Training(
        steps=train.steps,
        tokens=train.epochs * data_tokens if train.epochs and data_tokens else None,
        seconds=train.max_minutes * 60 if train.max_minutes else None,
        phases=tuple(Phase(end - start, context, batch, _target(train, context))
                     for (start, context, batch), end in zip(marks, ends) if end > start),
        accumulate=train.accumulate, precision=train.precision, optimizer=train.optimizer.name,
        activation_checkpointing=train.activation_checkpointing,
        packed=train.rows == "packed" and train.objective in ("causal", "masked"),
        head_share=train.masking.share if train.objective == "masked" else 1.0,
    )


def _target(train, context: int) -> int | None:
    """Tokens of the target of a source of `context`: pairs are taken to be of one length; of spans, the target has those
    that were taken out and the source the others, and both a sentinel for each (Raffel et al. 2020, section 3.1.4)."""
    if train.objective == "seq2seq":
        return context
    if train.objective == "span":
        spans = train.spans
        sentinels = spans.share / spans.mean_length  # of the text's tokens
        return max(1, round(context * (spans.share + sentinels) / (1 - spans.share + sentinels)))
    return None
