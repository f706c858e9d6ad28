"""What an encoder computes in: float32, bfloat16, or with its linear layers in 8 bits; and which of these to take.

8 bits move a vector a little. So where the choice is left to the machine, they are taken if they are the fastest here
and the model keeps its vectors in them, which is measured on some of the very texts.
"""

import copy
import time

import numpy as np
import torch
from torch import Tensor, nn

from .. import kernels
from ..errors import RequestError
from ..model.encoder import Encoder
from ..model.feedforward import ACTIVATIONS, FeedForward
from .embed import check, embed

DTYPES = ("float32", "bfloat16", "int8")
LAYER_TOKENS = 1024  # that one layer is measured with
LITTLE = 2e11  # FLOPs, about a second of float32: with less to do, exact vectors come soon enough
AGREES = 0.995  # the least mean cosine of vectors in 8 bits with those in float32; MiniLM has 0.998 (docs/embed.md)
SAMPLE, SAMPLE_TOKENS = 8, 128  # texts that this is measured on, and how much of each


class Int8Linear(nn.Module):
    """In 8 bits; each output's weights and each row have a scale of their own. Then GELU where `gelu`."""

    def __init__(self, layer: nn.Linear, gelu: bool = False):
        super().__init__()
        self.weight, self.gelu = kernels.int8_weight(layer.weight, layer.bias), gelu

    def forward(self, x: Tensor) -> Tensor:
        return kernels.linear_int8(x, self.weight, gelu=self.gelu)


def set_precision(model: Encoder, dtype: str) -> None:
    """Make `model`, which is in float32, compute in `dtype`, one of DTYPES. In 8 bits it has no weights to save."""
    if dtype not in DTYPES:
        raise RequestError(f"dtype {dtype!r} is not supported: it must be auto, {', '.join(DTYPES[:-1])} or int8")
    check(model)
    if dtype == "int8" and model.device.type != "cpu":
        raise RequestError("int8 is for the CPU; on a GPU take bfloat16")
    if dtype == "int8":
        for block in model.blocks:
            to_int8(block)
    model.set_dtype(torch.float32 if dtype == "float32" else torch.bfloat16)


def to_int8(module: nn.Module) -> None:
    """Put every linear layer inside `module` in 8 bits."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            to_int8(child)
    if isinstance(module, FeedForward) and module.activation is ACTIVATIONS["gelu"]:
        module.up.gelu, module.activation = True, nn.Identity()


def choose(model: Encoder, tokenizer, texts: list[str]) -> str:
    """The precision to embed `texts` in on this machine. `model` is in float32 and stays as it is."""
    longest = 4 * ((model.config.sentence and model.config.sentence.max_tokens) or model.config.context)
    tokens = sum(min(len(text), longest) for text in texts) / 4  # about 4 characters each
    if 2 * sum(p.numel() for p in model.matrices().values()) * tokens < LITTLE:
        return "float32"
    if model.device.type != "cpu":
        return "bfloat16"
    for dtype in fastest(model):
        if dtype != "int8" or agreement(model, tokenizer, texts) >= AGREES:
            return dtype


@torch.inference_mode()
def fastest(model: Encoder) -> list[str]:
    """DTYPES, those first in which one layer of `model` (in float32, on the CPU) takes one thread the least time here."""
    native = kernels.using()["linear_int8"] == "native"
    T, threads, seconds = min(256, model.config.context), torch.get_num_threads(), {}
    torch.set_num_threads(1)
    try:
        for dtype in DTYPES[: 2 + native]:
            layer = _copy(model, 1)
            set_precision(layer, dtype)
            x = torch.zeros(LAYER_TOKENS // T, T, model.config.d_model)
            times = []
            for _ in range(4):
                start = time.perf_counter()
                layer.run(x)
                times.append(time.perf_counter() - start)
            seconds[dtype] = min(times)
    finally:
        torch.set_num_threads(threads)
    return sorted(seconds, key=seconds.get)


def agreement(model: Encoder, tokenizer, texts: list[str]) -> float:
    """The mean cosine of vectors in 8 bits with those in float32, on some of `texts`."""
    texts = [text for text in texts if text.strip()]
    some = [texts[i] for i in np.linspace(0, len(texts) - 1, min(SAMPLE, len(texts))).astype(int)]
    small = _copy(model, len(model.blocks))
    set_precision(small, "int8")
    exact, near = (
        embed(which, tokenizer, some, max_tokens=min(SAMPLE_TOKENS, model.config.context)) for which in (model, small)
    )
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(near, axis=1)
    return float(np.mean((exact * near).sum(1) / np.maximum(lengths, 1e-12)))


def _copy(model: Encoder, n_layers: int) -> Encoder:
    """`model` with its first layers only, which are its own; the rest is shared."""
    found = copy.copy(model)
    found._modules = dict(model._modules)
    found.blocks, found.windows = copy.deepcopy(model.blocks[:n_layers]), model.windows[:n_layers]
    return found
