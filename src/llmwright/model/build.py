"""From a configuration to a model: empty, or with new weights."""

import torch
from torch.overrides import TorchFunctionMode

from .config import ModelConfig, Relative
from .decoder import Decoder
from .encoder import Encoder
from .encoder_decoder import EncoderDecoder
from .transformer import Transformer

KINDS = {"decoder": Decoder, "encoder": Encoder, "encoder-decoder": EncoderDecoder}
TABLES = ("embed", "positions", "token_types")  # weights whose rows are looked up


def build(config: ModelConfig) -> Transformer:
    """The model of this configuration; its weights are whatever the memory held."""
    with _Uninitialized():
        return KINDS[config.kind](config)


class _Uninitialized(TorchFunctionMode):
    """PyTorch's layers draw weights that nobody asked for; on the "meta" device that even loads its compiler (1 s)."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def new(config: ModelConfig, seed: int = 0) -> Transformer:
    """A model with new weights by the family's initialization (`ModelConfig.init_std`, `init_fan_in`,
    `init_residual_scale`): normal matrices and embeddings, the matrices of a block that write to the residual stream
    scaled down, norms 1, biases 0. The same seed gives the same weights."""
    model = build(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim < 2:
                p.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
                continue
            p.normal_(0.0, _std(config, name, p), generator=generator)
            if name.endswith(("attention.out.weight", "down.weight")):
                p.mul_(config.init_residual_scale)
    return model


def _std(config: ModelConfig, name: str, p: torch.Tensor) -> float:
    if not config.init_fan_in:
        return config.init_std
    if "positions" in name and isinstance(config.positions, Relative):
        return config.d_model**-0.5  # numbers that are added to scores, as T5 has them
    if any(table in name for table in TABLES):
        return config.init_std
    std = p.shape[-1] ** -0.5
    scale, usual = config.attention.scale, config.attention.head_dim**-0.5
    if name.endswith("query.weight") and scale is not None:
        std *= usual / scale  # new scores have the same size, whatever multiplies them (T5: nothing does)
    return std
