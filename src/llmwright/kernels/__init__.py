"""Each hot operation once, by name, with a readable reference and faster implementations behind it.

`kernels.rms_norm(x, weight, eps)` runs the implementation that `choose` picked for the device and dtype. What each
operation means is written in `reference.py`, and tests hold every implementation against it.
"""

from .reference import attention, linear_cross_entropy, rms_norm, rotary, swiglu

__all__ = ["attention", "linear_cross_entropy", "rms_norm", "rotary", "swiglu"]
