"""How much arithmetic a model takes.

A multiplication and the addition after it count as 2 FLOPs. A token's forward pass uses each matrix weight once
(2 FLOPs each) and compares itself with the tokens in its context; the backward pass computes two products for each
one of the forward pass, so training takes 3 times the forward pass (Kaplan et al. 2020, section 2.1). With the
attention term this is the count by which MFU is reported (Chowdhery et al. 2022, appendix B); without it, it is the
"6·N·D" of the scaling-law papers.
"""

from ..model.config import ModelConfig
from .parameters import parameters
from .shape import Shape, shape_of

PETAFLOPS_DAY = 1e15 * 86_400  # 8.64e19 FLOPs: a machine of 1 petaFLOP/s for a day


def attention_flops_per_token(config: ModelConfig | Shape, context: int) -> int:
    """Forward FLOPs of QKᵀ and of the weighted sum of V for one token of `context`: 2·2·T·H·C a layer.

    All T keys are counted, as the MFU convention does; causal attention needs half of them, and a kernel that skips
    the other half shows as a higher MFU.
    """
    s = shape_of(config)
    return s.n_layers * 4 * context * s.q_width


def forward_flops_per_token(config: ModelConfig | Shape, context: int) -> int:
    """FLOPs of one token's forward pass in a sequence of `context` tokens."""
    return 2 * parameters(config).matmul + attention_flops_per_token(config, context)


def training_flops_per_token(config: ModelConfig | Shape, context: int, *, activation_checkpointing: bool = False
                             ) -> int:
    """FLOPs of one token's forward and backward pass: 3 times the forward pass.

    With `activation_checkpointing` the blocks run forward twice: their forward pass is added once more. (This is the
    hardware's work; MFU by definition leaves the repetition out.)
    """
    s = shape_of(config)
    forward = forward_flops_per_token(s, context)
    blocks = forward - 2 * s.vocab_size * s.d_model
    return 3 * forward + (blocks if activation_checkpointing else 0)


def six_n_d(params: float, tokens: float) -> float:
    """The papers' estimate of training FLOPs: 6 for each parameter (the active ones) and token."""
    return 6 * params * tokens


def petaflops_days(flops: float) -> float:
    """FLOPs as petaFLOP/s-days (Brown et al. 2020, table D.1: 3.14e23 is 3.64e3)."""
    return flops / PETAFLOPS_DAY
