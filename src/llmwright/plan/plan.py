"""A plan: what a training run will take, before anything is spent, and whether it fits."""

from dataclasses import asdict, dataclass

from ..errors import RequestError
from ..model.config import ModelConfig
from . import flops as work, memory, scaling
from .devices import Device
from .parameters import Parameters, parameters
from .remedies import HEADROOM, Remedy, remedies
from .shape import Shape, shape_of
from .training import Training


@dataclass(frozen=True)
class Step:
    """What `measure.measure` found by running the model: seconds and bytes instead of assumptions.

    `seconds_per_token` of training, all phases and the optimizer's share included; `bytes` at the peak, or None.
    """

    seconds_per_token: float
    bytes: float | None = None


@dataclass(frozen=True)
class Plan:
    """All figures of a plan. Bytes, FLOPs, seconds, US dollars; memory is one device's.

    `flops` is the work by MFU's definition (`plan.flops`); `six_n_d` the papers' 6·N·D. `tokens`, `seconds` and what
    follows from them are None when neither the tokens nor a time is known.
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


def make_plan(config: ModelConfig | Shape, run: Training, device: Device, measured: Step | None = None) -> Plan:
    """The plan of training `config` by `run` on `device`, and of the model's use afterwards.

    `measured` (see `measure.measure`) replaces the assumed share of the peak rate. Raises RequestError for numbers that
    no run can have.
    """
    s = shape_of(config)
    phase = run.largest
    if s.positions == "learned" and phase.context > s.context:
        raise RequestError(f"context {phase.context} is beyond the {s.context} positions that {s.name} has learned")
    precision = run.precision
    if precision == "auto":
        precision = "bfloat16" if device.bfloat16 > device.float32 else "float32"
    p = parameters(s)

    checkpointing = run.activation_checkpointing
    parts = memory.training_memory(s, phase.batch, phase.context, precision, run.optimizer, checkpointing,
                                   base=device.base, shards=run.n_devices)
    if measured and measured.bytes:
        parts = _calibrated(parts, measured.bytes)
    fits = sum(parts.values()) <= HEADROOM * device.memory

    tokens_per_second, flops_per_token = _speed(s, run, device, precision)
    if measured:
        tokens_per_second = run.n_devices / measured.seconds_per_token
    tokens = run.tokens
    if run.seconds is not None:
        tokens = min(tokens or float("inf"), run.seconds * tokens_per_second)
    seconds = None if tokens is None else tokens / tokens_per_second
    cost = None if seconds is None or device.price is None else seconds / 3600 * device.price * run.n_devices

    return Plan(
        name=s.name, shape=s, parameters=p, run=run, device=device, precision=precision, tokens=tokens,
        steps=None if tokens is None else tokens / run.tokens_per_step, memory=parts, fits=fits,
        remedies=() if fits else remedies(s, run, device, precision),
        inference={f"{bits} bit": _inference(s, bits, phase.context, device) for bits in (32, 16, 8, 4)},
        attention_matrix=memory.attention_matrix_bytes(phase.context),
        flops_per_token=flops_per_token, flops=None if tokens is None else flops_per_token * tokens,
        six_n_d=None if tokens is None else work.six_n_d(p.active, tokens),
        tokens_per_second=tokens_per_second, seconds=seconds, cost=cost,
        compute_optimal=tuple(scaling.optima(params=p.active)),
        loss=None if tokens is None else scaling.BESIROGLU.loss(p.active, tokens),
        measured=measured is not None, notes=tuple(_notes(s, run, device, measured)),
    )


def _speed(s: Shape, run: Training, device: Device, precision: str) -> tuple[float, int]:
    """(tokens/s on all devices, training FLOPs a token): averages over the phases' tokens."""
    tokens = seconds = flops = 0.0
    for phase in run.phases:
        n = phase.share * phase.batch * phase.context
        done = work.training_flops_per_token(s, phase.context,
                                             activation_checkpointing=run.activation_checkpointing)
        seconds += n * done / device.rate(precision)
        flops += n * work.training_flops_per_token(s, phase.context)
        tokens += n
    return run.n_devices * tokens / seconds, round(flops / tokens)


def _inference(s: Shape, bits: int, context: int, device: Device) -> dict[str, float]:
    """Memory of one sequence of `context` tokens, and the rate that reading it for each token leaves at most."""
    parts = memory.inference_memory(s, bits, context)
    read = parts["weights"] * parameters(s).active / parameters(s).total + parts["kv cache"]
    return {**parts, "total": sum(parts.values()), "tokens_per_second_at_most": device.bandwidth / read}


def _calibrated(parts: dict[str, float], total: float) -> dict[str, float]:
    """`parts` with the working space set so that they add up to the measured `total`, if it is not below the rest."""
    rest = sum(v for name, v in parts.items() if name != "working space")
    return {**parts, "working space": max(total - rest, 0.0)}


def _notes(s: Shape, run: Training, device: Device, measured: Step | None) -> list[str]:
    notes = []
    if measured:
        notes.append("time: from steps of this model timed on this machine")
    elif device.measured:
        notes.append(f"time: {device.mfu:.0%} of this machine's measured matrix-product rate (assumed)")
    else:
        notes.append(f"time: {device.mfu:.0%} of the data sheet's rate (assumed)")
    if device.price is not None:
        notes.append(f"cost: ${device.price:g} an hour (assumed: order of magnitude of list prices)")
    if run.n_devices > 1:
        notes.append("several devices: states divided evenly, communication not counted")
    if run.tokens is None and run.seconds is None:
        notes.append("time and cost need the number of tokens: --tokens")
    return notes
