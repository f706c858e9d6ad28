"""This machine as a `Device`: its matrix-product rates, memory bandwidth and memory, measured in about a second."""

import os
import time
from functools import lru_cache

from .devices import CPU_SLACK, Device

# One process that trains reaches this share of the measured matrix-product rate: assumed for a model that was not
# itself timed (plan/measure.py times one and needs no such assumption).
MFU = 0.5


def read_bandwidth(device: str = "cpu", seconds: float = 0.15) -> float:
    """Bytes/s of a streaming read (a sum over 256 MB, which no cache holds)."""
    import torch

    x = torch.ones(64 * 2**20, device=device)
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        wait()
        start = time.perf_counter()
        x.sum()
        wait()
        best = min(best, time.perf_counter() - start)
    return x.nbytes / best


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
    """Bytes of memory this process occupies now, after giving back to the system what is free."""
    import ctypes
    import gc

    import psutil

    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed memory for later; other systems have no such call
    except (AttributeError, OSError, TypeError):
        pass
    return psutil.Process().memory_info().rss


@lru_cache(maxsize=1)
def this_machine() -> Device:
    """This machine: an accelerator if torch sees one, else the CPU with the threads torch uses. Measured once."""
    import torch

    from ..train.machine import product_rate

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        rates = (product_rate(8192, 8192, 8192, dtype, "cuda") for dtype in (torch.float32, torch.bfloat16))
        return Device(f"this machine ({card.name})", card.total_memory, read_bandwidth("cuda"), *rates, None, mfu=MFU,
                      measured=True)
    bandwidth = read_bandwidth()
    rates = [product_rate(1024, 1024, 1024, dtype, seconds=0.3) for dtype in (torch.float32, torch.bfloat16)]
    threads = torch.get_num_threads()
    return Device(f"this machine ({threads} of {os.cpu_count()} cores)", available_memory(), bandwidth, *rates, None,
                  mfu=MFU, base=resident(), slack=CPU_SLACK, measured=True)
