"""What a decoder that only writes holds its matrices in: floating point as it was loaded, or 8 or 4 bits; and matrices
that multiply the same states joined to one, so that a token asks for fewer products.

Writing a token reads every matrix once and does little with it, so at few texts its time is that of reading (Kwon et
al. 2023, section 2.2): half the bits, half the time. The bits lie in groups of 32 with a scale each
(`kernels.quantized_weight`). The head is in 8 bits in any case: in 4, every seventh first choice is another
(docs/kernels.md).
"""

from pathlib import Path

import torch
from torch import nn

from .. import kernels
from ..checkpoint import one_file
from ..errors import RequestError
from ..model.attention import Attention
from ..model.decoder import Decoder
from ..model.experts import MixtureOfExperts
from ..model.feedforward import GatedFeedForward
from . import tape
from .linear import FloatLinear, Joined, QuantizedLinear, SteadyLinear

WEIGHTS = ("float", "int8", "int4")
BITS = {"int8": 8, "int4": 4}
FLOATS = ("F32", "F16", "BF16")


def stored(place: Path) -> str:
    """What the weights of a model at `place` are stored in, as one of WEIGHTS: "int4" is exact for a GGUF file in Q4_1,
    "int8" for one in Q8_0, and as good as the file for its other formats of few bits."""
    if place.is_dir():
        return "float"
    ((format, _),) = one_file.formats(place).most_common(1)
    return "float" if format in FLOATS else "int4" if format == "Q4_1" else "int8"


@torch.no_grad()
def hold(model: Decoder, weights: str = "float", *, steady: bool = False) -> None:
    """Make `model` hold its matrices as `weights`, one of WEIGHTS, says. It cannot be trained or saved after that.

    `steady`: what is computed for a text is the same to the bit whatever is computed beside it. Raises RequestError
    where that cannot be had.
    """
    if weights not in WEIGHTS:
        raise RequestError(f"weights {weights!r} are not supported: it must be auto, {', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}")
    if not isinstance(model, Decoder):
        raise RequestError("weights in few bits and deterministic texts are for decoders")
    if weights != "float" and model.device.type != "cpu":
        raise RequestError(f"weights in {weights} are for the CPU; on a GPU leave them in bfloat16")
    model.check_whole()
    if steady:
        _check_steady(model, weights)
    bits, size = BITS.get(weights), model.size

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
    else:
        model.head.product = (SteadyLinear if steady else FloatLinear)(table.to(model.dtype), None)
    model.held += size - model.size
    model.steady, model.weights = steady, weights
    model.tape = tape.record(model)


def _check_steady(model: Decoder, weights: str) -> None:
    """Raises RequestError where the kernels that this takes are missing."""
    found = kernels.using(model.device)
    needed = ["paged_attention", "linear_steady", *(["linear_quantized"] if weights != "float" else [])]
    if any(found[name] != "native" for name in needed) or model.dtype not in kernels.native.DTYPES:
        why = kernels.native.problem() or "they are for float32 and bfloat16 on a CPU (in few bits: with AVX-512 VNNI)"
        raise RequestError(f"deterministic texts need the native kernels, which are not to be had here: {why}")
