"""What this machine is and how fast its matrix products are; which precision trains faster on it."""

import os
import platform
import time

import torch

from ..errors import RequestError
from ..model.config import ModelConfig


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the accelerator where there is one. Raises RequestError for one that is
    unknown or not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()
    except Exception as error:  # torch raises a different type for each way of not being there
        here = "auto, cpu" + (", cuda" if torch.cuda.is_available() else "")
        raise RequestError(f"device {name!r} is not available here; available: {here}") from error
    return device


def product_rate(rows: int, inner: int, outer: int, dtype: torch.dtype, device="cpu", seconds: float = 0.15) -> float:
    """FLOP/s of (rows × inner)·(inner × outer): the best of many, since interruptions only slow it down."""
    a = torch.randn(rows, inner, device=device).to(dtype)
    b = torch.randn(outer, inner, device=device).to(dtype)
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    torch.nn.functional.linear(a, b)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        wait()
        start = time.perf_counter()
        torch.nn.functional.linear(a, b)
        wait()
        best = min(best, time.perf_counter() - start)
    return 2 * rows * inner * outer / best


def faster_precision(config: ModelConfig, rows: int, device="cpu") -> tuple[str, dict[str, float]]:
    """("bfloat16" or "float32", both rates): bfloat16 where the model's own largest products run at least 1.3 times
    as fast in it (1.3: below that, casts eat the gain; measured on 2 Zen 4 cores)."""
    shape = (min(rows, 4096), config.d_model, config.feed_forward.d_ff)
    rates = {name: product_rate(*shape, getattr(torch, name), device) for name in ("float32", "bfloat16")}
    return ("bfloat16" if rates["bfloat16"] > 1.3 * rates["float32"] else "float32"), rates


def describe(device: torch.device) -> dict:
    """The machine, for a run's manifest."""
    import psutil

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": psutil.virtual_memory().total,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def reset_peak_memory() -> None:
    """Forget the peak so far, so that `peak_memory` tells of what comes (Linux; elsewhere the process's life)."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def peak_memory() -> int:
    """Bytes: the most this process has held."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
