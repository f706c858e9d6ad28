"""The learning rate over the training, as a factor of its peak, by progress (0 at the start, 1 at the end)."""

import math

from ..recipe import Schedule


def factor(schedule: Schedule, progress: float) -> float:
    """Linear warm-up, then `wsd`: stable, and linear decay over the last `decay` (Hu et al. 2024; linear: Hägele et
    al. 2024); `cosine`: half a cosine down to `final`; `constant`."""
    if progress < schedule.warmup:
        return max(progress, 1e-3 * schedule.warmup) / schedule.warmup
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "cosine":
        along = (progress - schedule.warmup) / max(1 - schedule.warmup, 1e-9)
        return schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * min(along, 1.0)))
    left = (1 - progress) / schedule.decay if schedule.decay else 1.0
    return schedule.final + (1 - schedule.final) * min(1.0, max(left, 0.0))
