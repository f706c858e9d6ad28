"""FLOPs against counts by hand, published budgets, and torch's own counter."""

from dataclasses import replace

import pytest

from llmwright.families.shapes import shape
from llmwright.model.config import Attention, FeedForward, ModelConfig, Rotary
from llmwright.plan import flops
from llmwright.plan.parameters import parameters
from llmwright.plan.presets import preset
from llmwright.plan.shape import Shape
from llmwright.recipe import Model

TINY = Shape("tiny", vocab_size=10, d_model=4, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=2, d_ff=6, context=8)


def test_tiny_model_by_hand():
    # a layer: query 4×4, key and value 4×2 each, out 4×4, three of 4×6; the head 4×10
    weights = 2 * (16 + 8 + 8 + 16 + 3 * 24) + 40
    assert parameters(TINY).matmul == weights == 280
    # attention at 8 tokens: scores 2·8·4 and weighted sum 2·8·4, in each layer
    assert flops.attention_flops(TINY, 8) == 8 * 2 * (64 + 64)
    assert flops.forward_flops_per_token(TINY, 8) == 2 * 280 + 256
    assert flops.training_flops_per_token(TINY, 8) == 3 * (2 * 280 + 256)
    # checkpointing repeats the blocks' forward pass (all but the head's 2·40)
    repeated = flops.training_flops_per_token(TINY, 8, activation_checkpointing=True)
    assert repeated == 3 * 816 + 816 - 80


def test_forward_is_what_torch_counts():
    config = ModelConfig("llama", 50, 32, 2, 16, Attention(4, 2, 8), FeedForward(64), Rotary())
    assert counted(config, 16) == 3 * 16 * flops.forward_flops_per_token(config, 16)


def counted(config, *sizes) -> int:
    """torch's own count of a forward pass over `sizes` tokens, of source and target."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from llmwright.kernels import reference
    from llmwright.model import attention
    from llmwright.model.build import new

    model, texts = new(config), [torch.randint(3, 50, (3, n)) for n in sizes]
    counter = FlopCounterMode(display=False)
    fused, attention.kernels.attention = attention.kernels.attention, reference.attention  # countable products
    try:
        with counter, torch.no_grad():
            model(*texts)
    finally:
        attention.kernels.attention = fused
    return counter.get_total_flops()


@pytest.mark.parametrize("family", ["mixtral", "gemma", "bloom", "palm", "falcon", "bert", "roberta"])
def test_every_family_does_what_torch_counts(family):
    config = shape(Model(family=family, d_model=32, n_layers=2, n_heads=4, context=16), 50, {"pad": 0})
    assert counted(config, 16) == 3 * 16 * flops.forward_flops_per_token(config, 16)


@pytest.mark.parametrize("family", ["t5", "marian"])
def test_an_encoder_decoder_does_what_torch_counts(family):
    config = shape(
        Model(family=family, d_model=32, n_layers=2, n_encoder_layers=3, n_heads=4, context=24), 50, {"pad": 0})
    assert counted(config, 24, 9) == pytest.approx(3 * (24 + 9) * flops.forward_flops_per_token(config, 24, 9))
    assert flops.forward_flops_per_token(config, 24) == flops.forward_flops_per_token(config, 24, 24)


def test_an_encoder_decoder_by_hand():
    tiny = replace(TINY, kind="encoder-decoder", n_encoder_layers=1, gated=False, n_kv_heads=2)
    # a layer: four of 4×4, two of 4×6; source tokens pass one encoder layer, and two layers' cross keys and values
    assert parameters(tiny).source_matmul == (4 * 16 + 2 * 24) + 2 * (2 * 16)
    # target tokens two decoder layers, with cross queries and outputs, and the head 4×10
    assert parameters(tiny).matmul == 2 * (4 * 16 + 2 * 24 + 2 * 16) + 40
    # scores and sums: 4·H·C a pair; the source's 8·8 in one layer, the target's 2·2 and its 2·8 with the source in two
    assert flops.attention_flops(tiny, 8, 2) == 16 * (8 * 8 + 2 * (2 * 2 + 2 * 8))


def test_a_window_and_a_head_that_few_tokens_reach():
    windowed = replace(TINY, windows=(3, None))
    assert flops.attention_flops(windowed, 8) == 8 * 4 * (3 + 8) * 4
    assert flops.attention_flops(windowed, 2) == flops.attention_flops(TINY, 2)
    whole, some = (flops.forward_flops_per_token(TINY, 8, head_share=share) for share in (1, 0.25))
    assert whole - some == 2 * 0.75 * 40


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
