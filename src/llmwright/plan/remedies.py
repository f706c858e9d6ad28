"""What would make a run fit a device it does not fit, each change tried by the memory formulas, from the cheapest."""

from dataclasses import dataclass

from . import memory
from .devices import DEVICES, Device
from .shape import Shape
from .training import Training

HEADROOM = 0.95  # of a device's memory: the rest goes to fragmentation and to what else runs there


@dataclass(frozen=True)
class Remedy:
    """`change` in words; `bytes` it would take then, on each device; whether it fits by itself."""

    change: str
    bytes: float
    fits: bool


def remedies(s: Shape, run: Training, device: Device, precision: str) -> tuple[Remedy, ...]:
    """Changes that make the run fit, each with its memory; those that help without being enough say so.

    Changes that keep what is computed come first (a smaller micro-batch with accumulation, recomputed activations),
    then lower precision and an 8-bit optimizer, then more devices, then training less (LoRA, QLoRA).
    """
    room = HEADROOM * device.memory
    phase = run.largest
    checkpointing = run.activation_checkpointing

    def total(precision=precision, **changed) -> float:
        return sum(memory_of(s, run, device, precision, **changed).values())

    now, found = total(), []

    def offer(change: str, size: float) -> None:
        if size < 0.98 * now:
            found.append(Remedy(change, size, size <= room))

    if phase.batch > 1:
        batch = _largest(phase.batch - 1, lambda b: total(batch=b, accumulate=2) <= room)
        times = -(-phase.batch * run.accumulate // batch)
        offer(f"micro-batches of {batch} instead of {phase.batch} rows, {times} accumulated",
              total(batch=batch, accumulate=times))
    if not checkpointing:
        offer("activation checkpointing (about a third more time)", total(activation_checkpointing=True))
    if precision == "float32":
        offer("bfloat16 activations", total(precision="bfloat16"))
    if run.optimizer != "adamw8bit":
        offer("an 8-bit optimizer", total(optimizer="adamw8bit"))
    least = {"batch": 1, "activation_checkpointing": True, "optimizer": "adamw8bit", "precision": "bfloat16",
             "accumulate": phase.batch * run.accumulate}
    offer("all of these with micro-batches of 1 row", total(**least))
    if not any(r.fits for r in found) and phase.context > 128:
        context = _largest(phase.context, lambda c: total(**least, context=c) <= room)
        if total(**least, context=context) <= room:
            offer(f"all of these and a context of {context} tokens", total(**least, context=context))
    larger = smallest_device(s, run, precision)
    if larger:
        found.append(Remedy(f"a device with more memory, as it is: {larger}", now, True))
    # 1 row each, activations recomputed: the states are what has to be divided
    n = 2 * run.n_devices
    while n < 2**20 and total(batch=1, activation_checkpointing=True, shards=n) > room:
        n *= 2
    if not larger and total(batch=1, activation_checkpointing=True, shards=n) <= room:
        offer(f"{n} devices: states divided, 1 row each, activation checkpointing",
              total(batch=1, activation_checkpointing=True, shards=n))
    for name, bits in (("LoRA, rank 16: weights frozen in 16 bits", 16), ("QLoRA: weights frozen in 4.13 bits", 4.13)):
        size = sum(memory.lora_memory(s, 1, phase.context, "bfloat16", 16, True, device.base, bits,
                                      phase.target).values())
        if size <= room:
            offer(name + ", 1 row, activation checkpointing", size)
    return tuple(found)


def _largest(upper: int, fits) -> int:
    """The largest number from 1 to `upper` that `fits`, else 1; `fits` must be monotone."""
    low, high = 1, upper
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def memory_of(s: Shape, run: Training, device: Device, precision: str, **changed) -> dict[str, float]:
    """`memory.training_memory` of `run` on `device`, with arguments changed."""
    phase = run.largest
    arguments = {
        "batch": phase.batch, "context": phase.context, "precision": precision, "optimizer": run.optimizer,
        "activation_checkpointing": run.activation_checkpointing, "base": device.base, "shards": run.n_devices,
        "accumulate": run.accumulate, "packed": run.packed, "slack": device.slack,
        "target": phase.of(changed.get("context"), None).target,
    }
    return memory.training_memory(s, **{**arguments, **changed})


def smallest_device(s: Shape, run: Training, precision: str) -> str | None:
    """The name of the table's device with the least memory that the run fits as it is, or None."""
    for device in sorted(DEVICES.values(), key=lambda d: (d.memory, d.price or 0)):
        if device.price is not None and sum(memory_of(s, run, device, precision).values()) <= HEADROOM * device.memory:
            return device.name
    return None
