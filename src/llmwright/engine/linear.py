"""The linear layers of a decoder that only writes (`weights.hold`)."""

from torch import Tensor, nn

from .. import kernels

FEW = 32  # rows for which linear_steady is sooner done than PyTorch's product


class QuantizedLinear(nn.Module):
    """x · Wᵀ + bias, the matrix in `bits` bits."""

    def __init__(self, weight: Tensor, bias: Tensor | None, bits: int):
        super().__init__()
        self.weight = kernels.quantized_weight(weight, bias, bits)

    def forward(self, x: Tensor) -> Tensor:
        return kernels.linear_quantized(x, self.weight)


class SteadyLinear(nn.Module):
    """x · Wᵀ + bias, whose rows do not depend on each other to the bit."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        return kernels.linear_steady(x, self.weight, self.bias)


class FloatLinear(SteadyLinear):
    """x · Wᵀ + bias, the fastest way."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__(weight, bias)
        self.few = FEW if kernels.using(weight.device)["linear_steady"] == "native" else 0

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() <= self.few * x.shape[-1]:
            return kernels.linear_steady(x, self.weight, self.bias)
        return nn.functional.linear(x, self.weight, self.bias)


class Joined(nn.Module):
    """Several layers of the same input as one. (…, K) → one (…, F) for each."""

    def __init__(self, layer: nn.Module, outputs: list[int]):
        super().__init__()
        self.layer, self.outputs = layer, outputs

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.layer(x).split(self.outputs, dim=-1)
