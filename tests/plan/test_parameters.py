"""Parameter counts are the published ones, and those of the modules that are built."""

import pytest
from hypothesis import given, strategies as st

from llmwright.errors import RequestError
from llmwright.families.shapes import shape
from llmwright.model.config import Attention, FeedForward, Learned, ModelConfig, Norm, Rotary
from llmwright.plan.parameters import parameters
from llmwright.plan.presets import PRESETS, preset
from llmwright.plan.shape import Shape, shape_of, typical
from llmwright.recipe import FAMILIES, Model

# checkpoints' own counts (numel over all tensors of the published files)
EXACT = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "falcon-180b": 179_522_565_120,
    "mixtral-8x22b": 140_620_634_112,
    "smollm2-135m": 134_515_008,
    "qwen3-0.6b": 596_049_920,
}


@pytest.mark.parametrize("name", EXACT)
def test_presets_have_their_checkpoints_parameters(name):
    assert parameters(preset(name)).total == EXACT[name]


def test_models_without_a_checkpoint_have_their_papers_size():
    assert round(parameters(preset("gpt3-175b")).total / 1e6, -2) == 174_600  # Brown et al. 2020, table D.1
    assert parameters(preset("chinchilla-70b")).total == pytest.approx(70e9, rel=0.005)


def test_mixture_counts_total_and_active():
    p = parameters(preset("mixtral-8x22b"))
    assert (round(p.total / 1e9), round(p.active / 1e9)) == (141, 39)


def test_gpt2_by_hand():
    p = parameters(preset("gpt2"))
    d = 768
    assert p.parts == {
        "embedding": 50_257 * d,
        "positions": 1024 * d,
        "attention": 12 * (d * 3 * d + 3 * d + d * d + d),
        "feed_forward": 12 * (d * 4 * d + 4 * d + 4 * d * d + d),
        "norms": (2 * 12 + 1) * 2 * d,
        "head": 0,
    }
    assert p.non_embedding == 124_439_808 - (50_257 + 1024) * d
    assert p.matmul == 12 * 12 * d * d + 50_257 * d  # the tied head still multiplies
    assert p.block_matrices == 12 * 12 * d * d


CONFIGS = [
    ModelConfig("qwen3", 300, 48, 3, 64, Attention(4, 2, 16, qk_norm=True), FeedForward(100), Rotary()),
    ModelConfig("llama", 300, 48, 2, 64, Attention(4, 4, 12), FeedForward(100), Rotary(), tie_embeddings=True),
    ModelConfig("gpt2", 300, 48, 2, 64, Attention(4, 4, 12, qkv_bias=True, out_bias=True),
                FeedForward(192, "gelu_tanh", gated=False, bias=True), Learned(64), Norm("layer", 1e-5, bias=True),
                tie_embeddings=True),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.family)
def test_counts_are_those_of_the_built_model(config):
    from llmwright.model.decoder import Decoder

    model = Decoder(config)
    p = parameters(config)
    assert p.total == p.active == sum(w.numel() for w in model.parameters())
    assert p.block_matrices == sum(w.numel() for w in model.matrices().values())


OPTIONS = [{}, {"tie_embeddings": False}, {"n_encoder_layers": 3}, {"n_kv_heads": 2}, {"n_experts": 3}, {"d_ff": 72}]


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_are_those_of_every_family(family):
    from llmwright.model.build import new

    for options in OPTIONS:
        try:
            spec = Model(**{"family": family, "d_model": 32, "n_layers": 2, "n_heads": 4, "context": 20, **options})
        except ValueError:  # a setting of another family
            continue
        config = shape(spec, 60, {"pad": 3})
        model, p = new(config), parameters(config)
        assert p.total == sum(w.numel() for w in model.parameters()), options
        assert p.block_matrices == sum(w.numel() for w in model.matrices().values()), options
        idle = [] if not config.experts else [
            w.numel() for block in model.all_blocks for expert in block.feed_forward.experts[2:] for w in expert.parameters()]
        assert p.active == p.total - sum(idle)


@given(st.integers(1, 64), st.integers(1, 8), st.sampled_from([1, 2, 4]), st.integers(1, 300), st.booleans(),
       st.booleans(), st.integers(1, 8))
def test_parts_add_up_for_any_shape(width, layers, heads, d_ff, gated, tied, experts):
    s = Shape("any", 100, 8 * width, layers, heads, heads, 8, d_ff, 32, gated=gated, tie_embeddings=tied,
              n_experts=experts, active_experts=1)
    p = parameters(s)
    assert sum(p.parts.values()) == p.total
    assert p.active == parameters(Shape(**{**vars(s), "n_experts": 1})).total + (8 * width * experts * layers
                                                                                 if experts > 1 else 0)  # the router


@given(st.floats(1e6, 1e13))
def test_typical_shape_has_the_parameters_asked_for(params):
    assert parameters(typical(params)).total == pytest.approx(params, rel=0.02)


def test_unknown_preset_names_the_nearest():
    with pytest.raises(RequestError, match="llama-3-8b"):
        preset("llama3-8b")
    with pytest.raises(RequestError, match="gpt2"):
        preset("gtp2")
    assert preset("Mixtral-8×22B") is PRESETS["mixtral-8x22b"]


@pytest.mark.parametrize("field, value", [("n_layers", 0), ("d_model", -1), ("vocab_size", 10**12)])
def test_impossible_shapes_are_refused_by_name(field, value):
    with pytest.raises(RequestError, match=f"{field} is {value}"):
        Shape(**{**vars(shape_of(CONFIGS[0])), field: value})
