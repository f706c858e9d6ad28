"""This machine as a `Device`: its matrix-product rates, memory bandwidth and memory, measured in about a second."""

import os
import statistics
import time
from functools import lru_cache

from .devices import Device

# One process that trains reaches this share of the measured matrix-product rate: assumed for a model that was not
# itself timed (plan/measure.py times one and needs no such assumption).
MFU = 0.5


def _rate(run, work: float, seconds: float, synchronize) -> float:
    """Median of `work`/time over at least 5 runs and about `seconds`."""
    run()
    synchronize()
    rates, end = [], time.perf_counter() + seconds
    while len(rates) < 5 or (time.perf_counter() < end and len(rates) < 200):
        start = time.perf_counter()
        run()
        synchronize()
        rates.append(work / (time.perf_counter() - start))
    return statistics.median(rates)


def matmul_rate(precision: str, device: str = "cpu", size: int | None = None, seconds: float = 0.3) -> float:
    """FLOP/s of a square matrix product in `precision` ("float32" or "bfloat16"): the median of several.

    `size` is 1024 on a CPU and 8192 on an accelerator unless given: large enough to reach the plateau there.
    """
    import torch

    n = size or (1024 if device == "cpu" else 8192)
    a, b = (torch.randn(n, n, device=device, dtype=getattr(torch, precision)) for _ in range(2))
    out = torch.empty_like(a)
    synchronize = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    return _rate(lambda: torch.mm(a, b, out=out), 2 * n**3, seconds, synchronize)


def read_bandwidth(device: str = "cpu", seconds: float = 0.15) -> float:
    """Bytes/s of a streaming read (a sum over 256 MB, which no cache holds)."""
    import torch

    x = torch.ones(64 * 2**20, device=device)
    synchronize = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    return _rate(lambda: x.sum(), x.numel() * 4, seconds, synchronize)


def available_memory() -> float:
    """Bytes this process may use: the machine's, or the container's limit where that is lower."""
    import psutil

    limit = float(psutil.virtual_memory().total)
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as file:
                limit = min(limit, float(file.read()))
        except (OSError, ValueError):  # no such control group, or "max"
            continue
    return limit


def resident() -> int:
    """Bytes of memory this process occupies now."""
    import psutil

    return psutil.Process().memory_info().rss


@lru_cache(maxsize=1)
def this_machine() -> Device:
    """This machine: an accelerator if torch sees one, else the CPU with the threads torch uses. Measured once."""
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return Device(f"this machine ({card.name})", card.total_memory, read_bandwidth("cuda"),
                      matmul_rate("float32", "cuda"), matmul_rate("bfloat16", "cuda"), None, mfu=MFU, measured=True)
    base = resident()  # before the measurement's own matrices
    float32, bfloat16 = matmul_rate("float32"), matmul_rate("bfloat16")
    threads = torch.get_num_threads()
    return Device(f"this machine ({threads} of {os.cpu_count()} cores)", available_memory(), read_bandwidth(),
                  float32, bfloat16, None, mfu=MFU, base=base, measured=True)
