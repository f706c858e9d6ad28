"""Linear layers whose weights are 8 or 4 bits in groups of 32, over the native kernel (`cpu/linear_quantized.cpp`), which
wants them in panels; elsewhere the weights are made whole again once, and PyTorch multiplies."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native, reference

GROUP, PANEL = reference.GROUP, 32  # inputs; outputs
ROWS = 4096  # outputs that are quantized at a time


@dataclass(frozen=True)
class QuantizedWeight:
    """A matrix (F, K) in 8 or 4 bits with its layer's bias, as `kernels.quantized_weight` makes it: in `panels` for the
    native kernel, or `dense`, made whole again."""

    bits: int
    shape: tuple[int, int]
    bias: Tensor | None
    panels: Tensor | None = None
    padded: Tensor | None = None  # the bias, filled up to whole panels
    dense: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """What the weights take."""
        return (self.dense if self.panels is None else self.panels).nbytes

    def parts(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Of panels: the weights as `reference.quantize_groups` made them."""
        return unpacked(self.panels, self.bits, *self.shape)

    def whole(self) -> Tensor:
        """(F, K): the matrix that these bits stand for."""
        return self.dense if self.panels is None else reference.dequantize_groups(*self.parts())


def make(weight: Tensor, bias: Tensor | None, bits: int, packed: bool) -> QuantizedWeight:
    """`packed`: for the native kernel."""
    (outputs, K), bias = weight.shape, None if bias is None else bias.detach().float()
    made = []
    for part in weight.detach().split(ROWS):
        quantized = reference.quantize_groups(part, bits)
        made.append(panels(*quantized) if packed else reference.dequantize_groups(*quantized).to(weight.dtype))
    whole = torch.cat(made) if len(made) > 1 else made[0]
    if not packed:
        return QuantizedWeight(bits, (outputs, K), bias, dense=whole)
    padded = torch.zeros(len(whole) * PANEL)
    if bias is not None:
        padded[:outputs] = bias
    return QuantizedWeight(bits, (outputs, K), bias, whole, padded)


def panels(whole: Tensor, scale: Tensor, minimum: Tensor | None) -> Tensor:
    """As the kernel wants them: (F / 32, K / 32, bytes) uint8, filled up with zeros."""
    (outputs, K), G = whole.shape, scale.shape[1]
    P = -(-outputs // PANEL)
    full = torch.zeros(P * PANEL, G * GROUP, dtype=torch.uint8)
    full[:outputs, :K] = whole.to(torch.int16).add_(0 if minimum is not None else 128).to(torch.uint8)
    quads = full.view(P, PANEL, G, GROUP // 4, 4).permute(0, 2, 3, 1, 4)  # (P, G, 8, 32, 4)
    if minimum is not None:
        quads = quads[:, :, :4] | quads[:, :, 4:] << 4

    def head(values: Tensor) -> Tensor:  # (P, G, 64)
        padded = torch.zeros(P * PANEL, G, dtype=torch.float16)
        padded[:outputs] = values
        return padded.view(P, PANEL, G).transpose(1, 2).contiguous().view(torch.uint8)

    heads = [head(values) for values in (scale, minimum) if values is not None]
    return torch.cat([*heads, quads.flatten(2)], dim=2)


def unpacked(panels: Tensor, bits: int, outputs: int, K: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """What `panels` was given."""
    P, G, _ = panels.shape

    def tail(x: Tensor) -> Tensor:  # (P, G, 64) bytes to (outputs, G)
        return x.contiguous().view(torch.float16).transpose(1, 2).reshape(P * PANEL, G)[:outputs]

    scale, minimum, body = tail(panels[..., :64]), None, panels[..., 64:]
    if bits == 4:
        minimum, body = tail(panels[..., 64:128]), panels[..., 128:]
        body = torch.cat((body & 15, body >> 4), dim=2)
    whole = body.reshape(P, G, GROUP // 4, PANEL, 4).permute(0, 3, 1, 2, 4).reshape(P * PANEL, G * GROUP)[:outputs, :K]
    return (whole if bits == 4 else (whole.to(torch.int16) - 128).to(torch.int8)), scale, minimum


def linear(x: Tensor, w: QuantizedWeight) -> Tensor:
    """As `reference.linear_quantized`, by the native kernel."""
    outputs, K = w.shape
    rows, stride = native.rows(x, K)
    dtype = x.dtype
    y = torch.empty((*x.shape[:-1], outputs), dtype=dtype)
    native.function("linear_quantized", dtype)(
        rows.data_ptr(), stride, x.numel() // K, K, w.panels.data_ptr(), w.padded.data_ptr(), outputs, w.bits,
        y.data_ptr(), torch.get_num_threads(),
    )
    return y


def plain(x: Tensor, w: QuantizedWeight) -> Tensor:
    """x as it is times the matrix that the bits stand for."""
    return F.linear(x, w.whole().to(x.dtype), None if w.bias is None else w.bias.to(x.dtype))
