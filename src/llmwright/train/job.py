"""What the loop is given, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..model.transformer import Transformer
from ..progress import Progress
from ..recipe import Train
from .run import Run


@dataclass
class Job:
    """One training.

    `loader` has `next_batch(progress)`, `resize(context, batch)`, `state()`, `load_state(state)` and `epoch`.
    A batch has `to(device)` and `n_tokens`, what the model reads of it.
    `objective(model, batch)` gives (summed loss, valid targets, metrics). `evaluate(model)` gives a dict with at least
    `val_loss`; `sample(model)` gives [(prompt, text), …]. `fingerprint` names what the run was started with (data,
    recipe): a run is only gone on with when it is the same.
    """

    run: Run
    model: Transformer
    loader: Any
    objective: Callable
    settings: Train
    context: int
    evaluate: Callable[[Transformer], dict] | None = None
    sample: Callable[[Transformer], list[tuple[str, str]]] | None = None
    tokenizer: Any = None
    fingerprint: dict = field(default_factory=dict)
    flops_per_token: Callable[[int], float] | None = None  # context → FLOPs, for MFU
    progress: Progress = field(default_factory=Progress)


@dataclass
class Counters:
    """Where a training stands: everything the loop counts, saved in each checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0  # of training, evaluation and samples left out
    skipped: int = 0  # non-finite steps
    skipped_in_a_row: int = 0
    best_loss: float | None = None
    since_best: int = 0  # evaluations without a better loss
    best_saved_loss: float | None = None
    best_saved_step: int | None = None
    last_evaluation: dict = field(default_factory=dict)
    evaluated_at: int = -1
    saved_evaluation_of: int = -1  # the step whose evaluation is in its checkpoint


@dataclass
class Outcome:
    """`state` is "finished", "early" (no improvement), or "interrupted"."""

    state: str
    counters: Counters
    precision: str
    peak_memory: int
    tokens_per_second: float
    message: str = ""
