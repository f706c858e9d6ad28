"""Which precision writes text faster on this machine."""

import time

import torch
import torch.nn.functional as F

from ..model.config import ModelConfig

MATRICES = 8  # one after the other, so that not all of them are in the cache
LARGEST = 1 << 20  # elements of one: the measurement takes a tenth of a second


def faster(config: ModelConfig, device: str = "cpu") -> str:
    """"bfloat16" or "float32": in which one token is computed sooner. On an accelerator bfloat16, where it has that; on
    a CPU it is measured, on products of one row with matrices like the model's."""
    device = torch.device(device)
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type != "cpu":
        return "float32"
    d = min(config.d_model, 4096)
    outputs = min(config.feed_forward.d_ff, max(1, LARGEST // d))
    seconds = {name: _seconds(d, outputs, getattr(torch, name)) for name in ("float32", "bfloat16")}
    return min(seconds, key=seconds.get)


@torch.inference_mode()
def _seconds(d: int, outputs: int, dtype: torch.dtype) -> float:
    """For one product on one thread, as threads wait for each other where a machine is busy; the best of many, since
    interruptions only slow it down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    matrices = torch.full((MATRICES, outputs, d), 0.01, dtype=dtype)
    x, best = torch.full((1, d), 0.01, dtype=dtype), float("inf")
    for matrix in (*matrices,) * 6:
        start = time.perf_counter()
        F.linear(x, matrix)
        best = min(best, time.perf_counter() - start)
    torch.set_num_threads(threads)
    return best
