"""A plan: what a training run will take, before anything is spent, and whether it fits."""

from dataclasses import asdict, dataclass, replace

from ..errors import RequestError
from ..model.config import ModelConfig
from . import flops as work, memory, scaling
from .devices import Device
from .parameters import Parameters, parameters
from .remedies import HEADROOM, Remedy, memory_of, remedies
from .shape import Shape, shape_of
from .training import Phase, Training


@dataclass(frozen=True)
class Measured:
    """What `measure.measure` found by running the model's parts: seconds a token of training in each phase, and what
    the process takes when it has run them once."""

    seconds_per_token: tuple[float, ...]
    base: float


@dataclass(frozen=True)
class Plan:
    """All figures of a plan. Bytes, FLOPs, seconds, US dollars; memory is one device's, at the peak.

    `flops` is the work by MFU's definition (`plan.flops`); `six_n_d` the papers' 6·N·D (3·N·D for an encoder-decoder).
    `tokens`, `seconds` and what follows from them are None when neither the tokens nor a time is known.
    """

    name: str
    shape: Shape
    parameters: Parameters
    run: Training
    device: Device
    precision: str
    tokens: float | None
    steps: float | None
    memory: dict[str, float]
    fits: bool
    remedies: tuple[Remedy, ...]
    inference: dict[str, dict[str, float]]
    attention_matrix: float
    flops_per_token: int
    flops: float | None
    six_n_d: float | None
    tokens_per_second: float
    seconds: float | None
    cost: float | None
    compute_optimal: tuple[scaling.Optimum, ...]
    loss: float | None
    measured: bool
    notes: tuple[str, ...]

    @property
    def memory_total(self) -> float:
        return sum(self.memory.values())

    @property
    def petaflops_days(self) -> float | None:
        return None if self.six_n_d is None else work.petaflops_days(self.six_n_d)

    def to_dict(self) -> dict:
        """The plan as plain data for JSON: `parameters` and `memory` by part with their `total`."""
        plain = asdict(self)
        p = self.parameters
        plain["parameters"] = {**p.parts, "total": p.total}
        plain["active_parameters"], plain["non_embedding_parameters"] = p.active, p.non_embedding
        plain["memory"] = {**self.memory, "total": self.memory_total}
        plain["petaflops_days"] = self.petaflops_days
        plain["device"], plain["device_details"] = self.device.name, plain["device"]
        return plain


def make_plan(config: ModelConfig | Shape, run: Training, device: Device, measured: Measured | None = None) -> Plan:
    """The plan of training `config` by `run` on `device`, and of the model's use afterwards.

    `measured` (see `measure.measure`) replaces the assumed share of the peak rate. Raises RequestError for numbers that
    no run can have.
    """
    s = shape_of(config)
    longest = max(p.context for p in run.phases)
    if s.positions == "learned" and longest > s.context:
        raise RequestError(f"context {longest} is beyond the {s.context} positions that {s.name} has learned")
    run = replace(run, phases=tuple(_with_target(s, p) for p in run.phases))
    phase = run.largest
    if measured:
        device = replace(device, base=measured.base)
    precision = run.precision
    if precision == "auto":  # as train.machine.faster_precision: below 1.3 times, casts eat the gain
        precision = "bfloat16" if device.bfloat16 > 1.3 * device.float32 else "float32"
    p = parameters(s)
    parts = memory_of(s, run, device, precision)
    fits = sum(parts.values()) <= HEADROOM * device.memory

    rates = [1 / t for t in measured.seconds_per_token] if measured else _assumed_rates(s, run, device, precision)
    rates = [run.n_devices * rate for rate in rates]
    spent = run.spend(rates)
    by_phase = spent or [share.share for share in run.phases]  # weights for the averages
    total = sum(n * _flops(s, run, phase) for n, phase in zip(by_phase, run.phases))
    average = total / sum(by_phase)
    tokens_per_second = sum(by_phase) / sum(n / rate for n, rate in zip(by_phase, rates))
    tokens = None if spent is None else sum(spent)
    steps = None if spent is None else sum(n / size for n, size in zip(spent, run.tokens_per_step))
    seconds = None if spent is None else tokens / tokens_per_second
    cost = None if seconds is None or device.price is None else seconds / 3600 * device.price * run.n_devices

    return Plan(
        name=s.name, shape=s, parameters=p, run=run, device=device, precision=precision, tokens=tokens, steps=steps,
        memory=parts, fits=fits, remedies=() if fits else remedies(s, run, device, precision),
        inference={f"{bits} bit": _inference(s, bits, phase.context, device) for bits in (32, 16, 8, 4)},
        attention_matrix=memory.attention_matrix_bytes(phase.context),
        flops_per_token=round(average), flops=None if tokens is None else average * tokens,
        six_n_d=None if tokens is None else work.six_n_d(p.active, tokens, s.kind),
        tokens_per_second=tokens_per_second, seconds=seconds, cost=cost,
        compute_optimal=tuple(scaling.optima(params=p.active)),
        loss=None if tokens is None else scaling.BESIROGLU.loss(p.active, tokens),
        measured=measured is not None, notes=tuple(_notes(s, run, device, measured)),
    )


def _with_target(s: Shape, phase: Phase) -> Phase:
    """An encoder-decoder writes a target beside each source: as long, where the run does not say otherwise."""
    if s.kind != "encoder-decoder":
        return replace(phase, target=None)
    return replace(phase, target=phase.target or phase.context)


def _assumed_rates(s: Shape, run: Training, device: Device, precision: str) -> list[float]:
    """Tokens/s of one device in each phase, at the share of the peak rate that it is assumed to reach."""
    checkpointing = run.activation_checkpointing
    return [device.rate(precision) / _flops(s, run, phase, activation_checkpointing=checkpointing) for phase in run.phases]


def _flops(s: Shape, run: Training, phase: Phase, **options) -> float:
    return work.training_flops_per_token(s, phase.context, phase.target, head_share=run.head_share, **options)


def _inference(s: Shape, bits: int, context: int, device: Device) -> dict[str, float | None]:
    """Memory of one sequence of `context` tokens, and the rate that reading it for each token leaves at most (an encoder
    reads a text at once, so it has no such rate)."""
    parts = memory.inference_memory(s, bits, context)
    read = parts["weights"] * parameters(s).active / parameters(s).total + parts["kv cache"]
    rate = None if s.kind == "encoder" else device.bandwidth / read
    return {**parts, "total": sum(parts.values()), "tokens_per_second_at_most": rate}


def _notes(s: Shape, run: Training, device: Device, measured: Measured | None) -> list[str]:
    notes = []
    if measured:
        notes.append("time: from this model's parts, timed on this machine for about two seconds")
    elif device.measured:
        notes.append(f"time: {device.mfu:.0%} of this machine's measured matrix-product rate (assumed)")
    else:
        notes.append(f"time: {device.mfu:.0%} of the data sheet's rate (assumed)")
    if device.price is not None:
        notes.append(f"cost: ${device.price:g} an hour (assumed: order of magnitude of list prices)")
    if s.kind == "encoder-decoder":
        notes.append("tokens are those of sources and targets together, and so are FLOPs a token")
    if run.head_share < 1:
        notes.append(f"FLOPs: {run.head_share:.0%} of the tokens are masked, and these alone reach the head")
    if run.n_devices > 1:
        notes.append("several devices: states divided evenly, communication not counted")
    if run.tokens is run.seconds is run.steps is None:
        notes.append("time and cost need the number of tokens: --tokens")
    return notes
