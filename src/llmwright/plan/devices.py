"""What a model can be trained on: published figures of cards, and this machine measured.

The cards' memory, bandwidth and dense matrix rates are the manufacturers' (data sheets named beside each). Two
columns are assumptions, and every plan says so: the price (order of magnitude of public hourly list prices, 2025) and
the share of the peak rate that training reaches (`mfu`: 0.3–0.5 is what well-made runs report, e.g. 0.38–0.43 for
Llama 3, Grattafiori et al. 2024, table 4; 0.46 for PaLM, Chowdhery et al. 2022, table 3).
"""

import difflib
from dataclasses import dataclass, replace

from ..errors import RequestError

GIB = 2**30
# measured with glibc's malloc on 2 cores: peaks lay 33 to 41 % of the activations above the live tensors (Qwen3 shapes
# of 4 to 14M parameters, 1,024 to 8,192 tokens a micro-batch)
CPU_SLACK = 0.35


@dataclass(frozen=True)
class Device:
    """`memory` in bytes, `bandwidth` of that memory in bytes/s, `float32` and `bfloat16` peak matrix-product rates in
    FLOP/s, `price` in US dollars an hour (None: not rented), `mfu` the share of the peak that training reaches,
    `base` the bytes that the process itself takes of that memory (Python, torch, the driver's context), `slack` what its
    allocator leaves unused, as a share of the activations."""

    name: str
    memory: float
    bandwidth: float
    float32: float
    bfloat16: float
    price: float | None
    mfu: float = 0.4
    base: float = 0.6 * GIB  # assumed: a CUDA context with its libraries' kernels
    slack: float = 0.05
    measured: bool = False

    def peak(self, precision: str) -> float:
        return self.bfloat16 if precision == "bfloat16" else self.float32

    def rate(self, precision: str) -> float:
        """FLOP/s that training is expected to reach."""
        return self.peak(precision) * self.mfu


_ALL = (
    # float32: the plain units' rate, since tf32 gives another precision. Rates are dense, not with sparsity.
    Device("a100-40gb", 40 * GIB, 1.555e12, 19.5e12, 312e12, 1.3),  # NVIDIA A100 data sheet
    Device("a100-80gb", 80 * GIB, 2.039e12, 19.5e12, 312e12, 1.8),  # NVIDIA A100 data sheet, SXM
    Device("h100", 80 * GIB, 3.35e12, 67e12, 989e12, 3.0),  # NVIDIA H100 data sheet, SXM
    Device("h200", 141 * GIB, 4.8e12, 67e12, 989e12, 3.8),  # NVIDIA H200 data sheet, SXM
    Device("b200", 180 * GIB, 7.7e12, 75e12, 2250e12, 5.5),  # NVIDIA HGX B200 data sheet
    Device("mi300x", 192 * GIB, 5.3e12, 163.4e12, 1307e12, 3.0, mfu=0.3),  # AMD MI300X data sheet
    Device("l4", 24 * GIB, 0.3e12, 30.3e12, 121e12, 0.7),  # NVIDIA L4 data sheet
    # consumer cards: bfloat16 with float32 accumulation
    Device("rtx-3090", 24 * GIB, 0.936e12, 35.6e12, 71e12, 0.25),  # NVIDIA GA102 whitepaper
    Device("rtx-4090", 24 * GIB, 1.008e12, 82.6e12, 165e12, 0.45),  # NVIDIA Ada whitepaper
    # 2 cores of an EPYC (Zen 5), measured with PyTorch: see docs/plan.md; MFU measured with this project's loop
    Device("cpu-2-cores", 24 * GIB, 38e9, 80e9, 330e9, None, mfu=0.5, base=0.4 * GIB,
           slack=CPU_SLACK),
)
DEVICES: dict[str, Device] = {device.name: device for device in _ALL}
ALIASES = {
    "a100": "a100-80gb", "24gb": "rtx-4090", "4090": "rtx-4090", "3090": "rtx-3090",
    "cpu": "cpu-2-cores", "laptop": "cpu-2-cores",
}


def device(name: str) -> Device:
    """The device called `name`; "this" is this machine, measured. Raises RequestError with the nearest names."""
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    if key in ("this", "this-machine"):
        from .machine import this_machine

        return this_machine()
    key = ALIASES.get(key, key)
    if key in DEVICES:
        return DEVICES[key]
    known = [*DEVICES, *ALIASES, "this"]
    near = difflib.get_close_matches(key, known, 3, 0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(['this', *DEVICES])}"
    raise RequestError(f"--device {name}: no such device; {hint}")


def priced(device: Device, price: float | None) -> Device:
    """`device` at another price an hour."""
    return device if price is None else replace(device, price=price)
