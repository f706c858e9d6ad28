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


def attention_flops(s: Shape, context: int, target: int | None = None) -> int:
    """Forward FLOPs of QKᵀ and of the weighted sum of V for a row of `context` tokens: 2·2·T·T·H·C a layer.

    All T keys are counted, as the MFU convention does; causal attention needs half of them, and a kernel that skips
    the other half shows as a higher MFU. A windowed layer has as many keys as its window. In an encoder-decoder
    `context` is the source's, and the `target`'s tokens look at it and at themselves.
    """
    own = context if target is None else target
    keys = sum(min(own, window or own) for window in s.windows or (None,) * s.n_layers)
    pairs = own * (keys + s.cross_layers * context) + s.n_encoder_layers * context * context
    return 4 * pairs * s.q_width


def forward_flops_per_token(config: ModelConfig | Shape, context: int, target: int | None = None, *,
                            head_share: float = 1.0) -> float:
    """FLOPs of one token's forward pass in a sequence of `context` tokens; in an encoder-decoder the mean over the tokens
    of a source of `context` and a `target` of so many (as many, by default).

    `head_share`: of the tokens that reach the head (the masked objective predicts only those that were masked).
    """
    s, p = shape_of(config), parameters(config)
    own, source = context, 0
    if s.kind == "encoder-decoder":
        own, source = target or context, context
    products = own * (p.matmul - (1 - head_share) * p.head_matmul) + source * p.source_matmul
    return (2 * products + attention_flops(s, context, own)) / (own + source)


def training_flops_per_token(config: ModelConfig | Shape, context: int, target: int | None = None, *,
                             activation_checkpointing: bool = False, head_share: float = 1.0) -> float:
    """FLOPs of one token's forward and backward pass: 3 times the forward pass.

    With `activation_checkpointing` the blocks run forward twice: their forward pass is added once more. (This is the
    hardware's work; MFU by definition leaves the repetition out.)
    """
    forward = forward_flops_per_token(config, context, target, head_share=head_share)
    again = forward_flops_per_token(config, context, target, head_share=0) if activation_checkpointing else 0
    return 3 * forward + again


def per_parameter(kind: str) -> int:
    """FLOPs of training for each parameter (the active ones) and token, by the papers' estimate: 6; in an encoder-decoder
    3, since a token passes one half of it (Brown et al. 2020, table D.1)."""
    return 3 if kind == "encoder-decoder" else 6


def six_n_d(params: float, tokens: float, kind: str = "decoder") -> float:
    """The papers' estimate of training FLOPs, 6·N·D, or for the `kind` encoder-decoder 3·N·D."""
    return per_parameter(kind) * params * tokens


def petaflops_days(flops: float) -> float:
    """FLOPs as petaFLOP/s-days (Brown et al. 2020, table D.1: 3.14e23 is 3.64e3)."""
    return flops / PETAFLOPS_DAY
