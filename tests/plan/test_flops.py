"""FLOPs against counts by hand, published budgets, and torch's own counter."""

import pytest

from llmwright.model.config import Attention, FeedForward, ModelConfig, Rotary
from llmwright.plan import flops
from llmwright.plan.parameters import parameters
from llmwright.plan.presets import preset
from llmwright.plan.shape import Shape

TINY = Shape("tiny", vocab_size=10, d_model=4, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=2, d_ff=6, context=8)


def test_tiny_model_by_hand():
    # a layer: query 4×4, key and value 4×2 each, out 4×4, three of 4×6; the head 4×10
    weights = 2 * (16 + 8 + 8 + 16 + 3 * 24) + 40
    assert parameters(TINY).matmul == weights == 280
    # attention at 8 tokens: scores 2·8·4 and weighted sum 2·8·4, in each layer
    assert flops.attention_flops_per_token(TINY, 8) == 2 * (64 + 64)
    assert flops.forward_flops_per_token(TINY, 8) == 2 * 280 + 256
    assert flops.training_flops_per_token(TINY, 8) == 3 * (2 * 280 + 256)
    # checkpointing repeats the blocks' forward pass (all but the head's 2·40)
    repeated = flops.training_flops_per_token(TINY, 8, activation_checkpointing=True)
    assert repeated == 3 * 816 + 816 - 80


def test_forward_is_what_torch_counts():
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from llmwright.kernels import reference
    from llmwright.model import attention
    from llmwright.model.build import new

    config = ModelConfig("llama", 50, 32, 2, 16, Attention(4, 2, 8), FeedForward(64), Rotary())
    model = new(config)
    counter = FlopCounterMode(display=False)
    fused, attention.kernels.attention = attention.kernels.attention, reference.attention  # countable products
    try:
        with counter, torch.no_grad():
            model(torch.zeros(3, 16, dtype=torch.long))
    finally:
        attention.kernels.attention = fused
    assert counter.get_total_flops() == 3 * 16 * flops.forward_flops_per_token(config, 16)


def test_mixture_pays_for_active_experts_only():
    attention = 6144 * 48 * 128 * 2 + 6144 * 8 * 128 * 2  # query and out; key and value
    two_experts, router = 2 * 3 * 6144 * 16_384, 6144 * 8
    assert parameters(preset("mixtral-8x22b")).matmul == 56 * (attention + two_experts + router) + 32_000 * 6144


def test_petaflops_days_of_published_runs():
    # Brown et al. 2020, table D.1: GPT-3 174.6B parameters, 300B tokens: 3.14e23 FLOPs, 3.64e3 petaFLOP/s-days
    gpt3 = flops.six_n_d(174.6e9, 300e9)
    assert gpt3 == pytest.approx(3.14e23, rel=0.002)
    assert flops.petaflops_days(3.14e23) == pytest.approx(3640, rel=0.002)
    assert flops.petaflops_days(gpt3) == pytest.approx(3640, rel=0.002)
    assert flops.petaflops_days(9.0e21) == pytest.approx(104, abs=0.5)  # T5's 3B (XL): "about 100"
    assert flops.petaflops_days(8.64e19) == 1.0
