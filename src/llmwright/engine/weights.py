"""What a decoder that only writes holds its matrices in: floating point as it was loaded, or 8 or 4 bits; and matrices
that multiply the same states joined to one, so that a token asks for fewer products.

Writing a token reads every matrix once and does little with it, so at few texts its time is that of reading (Kwon et
al. 2023, section 2.2): half the bits, half the time. The bits lie in groups of 32 with a scale each
(`kernels.quantized_weight`). The head is in 8 bits in any case: in 4, every seventh first choice is another
(docs/kernels.md).
"""

import torch
from torch import Tensor, nn

from .. import kernels
from ..errors import RequestError
from ..model.attention import Attention
from ..model.decoder import Decoder
from ..model.experts import MixtureOfExperts
from ..model.feedforward import GatedFeedForward

WEIGHTS = ("float", "int8", "int4")
BITS = {"int8": 8, "int4": 4}


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

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


class Joined(nn.Module):
    """Several layers of the same input as one. (…, K) → one (…, F) for each."""

    def __init__(self, layer: nn.Module, outputs: list[int]):
        super().__init__()
        self.layer, self.outputs = layer, outputs

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.layer(x).split(self.outputs, dim=-1)


@torch.no_grad()
def hold(model: Decoder, weights: str = "float", *, steady: bool = False) -> None:
    """Make `model` hold its matrices as `weights`, one of WEIGHTS, says. It cannot be trained or saved after that.

    `steady`: what is computed for a text is the same to the bit whatever is computed beside it. Raises RequestError
    where that cannot be had.
    """
    if weights not in WEIGHTS:
        raise RequestError(f"weights {weights!r} are not supported: it must be {', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}")
    if not isinstance(model, Decoder):
        raise RequestError(f"weights in {weights} are for decoders")
    if weights != "float" and model.device.type != "cpu":
        raise RequestError(f"weights in {weights} are for the CPU; on a GPU leave them in bfloat16")
    if steady:
        check_steady(model)
    bits = BITS.get(weights)

    def layer(*parts: nn.Linear) -> nn.Module:
        weight = torch.cat([part.weight for part in parts]) if len(parts) > 1 else parts[0].weight
        bias = parts[0].bias
        if bias is not None and len(parts) > 1:
            bias = torch.cat([part.bias for part in parts])
        if bits:
            return QuantizedLinear(weight, bias, bits)
        return (SteadyLinear if steady else FloatLinear)(weight, bias)

    def joined(module: nn.Module, *names: str) -> None:
        parts = [getattr(module, name) for name in names]
        module.joined = Joined(layer(*parts), [part.out_features for part in parts])
        for name in names:
            setattr(module, name, None)

    for module in list(model.blocks.modules()):
        if isinstance(module, Attention):
            joined(module, "query", "key", "value")
        elif isinstance(module, GatedFeedForward):
            joined(module, "gate", "up")
        routers = (module.router,) if isinstance(module, MixtureOfExperts) else ()
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and (child not in routers or steady):
                kept = SteadyLinear(child.weight, child.bias) if child in routers else layer(child)
                setattr(module, name, kept)
    table = model.head_weight
    if bits:
        model.head.product = QuantizedLinear(table, None, 8)
        model.head.weight = None
    elif steady:
        model.head.product = SteadyLinear(table.to(model.dtype), None)
    model.steady = steady


def check_steady(model: Decoder) -> None:
    """Raises RequestError where the kernels that this takes are missing."""
    found = kernels.using(model.device)
    missing = [name for name in ("paged_attention", "linear_steady") if found[name] != "native"]
    if missing or model.dtype not in kernels.native.DTYPES:
        why = kernels.native.problem() or f"they are for float32 and bfloat16 on a CPU"
        raise RequestError(f"deterministic texts need the native kernels, which are not to be had here: {why}")
