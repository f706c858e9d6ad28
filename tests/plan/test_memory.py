"""Bytes against cases worked by hand."""

import pytest

from llmwright.errors import RequestError
from llmwright.plan import memory
from llmwright.plan.parameters import parameters
from llmwright.plan.presets import preset
from llmwright.plan.shape import typical


def test_attention_matrix():
    assert memory.attention_matrix_bytes(1000) == 4_000_000
    assert round(memory.attention_matrix_bytes(1000) / 2**20, 2) == 3.81
    assert memory.attention_matrix_bytes(100_000) == 40_000_000_000
    assert round(memory.attention_matrix_bytes(100_000) / 2**30, 2) == 37.25
    assert memory.attention_matrix_bytes(1000, heads=12, layers=12) == 144 * 4_000_000


def test_bytes_a_parameter():
    gpt2 = preset("gpt2")
    n, matrices = 124_439_808, 12 * 12 * 768 * 768

    def states(precision, optimizer):
        parts = memory.training_memory(gpt2, 1, 1, precision, optimizer)
        return sum(v for k, v in parts.items() if k not in ("activations", "working space"))

    assert states("float32", "adamw") == 16 * n  # weight, gradient, two states
    assert states("bfloat16", "adamw") == 16 * n + 2 * matrices
    assert states("float32", "muon") == 16 * n - 4 * matrices
    assert states("float32", "adamw8bit") == 10 * n
    assert 16 <= states("bfloat16", "adamw") / n <= 20  # the usual rule for mixed precision


def test_a_billion_parameters():
    shape = typical(1e9)
    assert memory.inference_memory(shape, 32, 1)["weights"] == pytest.approx(4e9, rel=0.002)
    parts = memory.training_memory(shape, 1, 2048, "float32", "adamw")
    assert 18e9 < sum(parts.values()) < 30e9  # "about 24 GB": 16 bytes a parameter, and activations


def test_weights_by_bits_and_kv_cache_of_llama():
    llama = preset("llama-3-8b")
    assert memory.inference_memory(llama, 16, 8192) == {"weights": 2 * 8_030_261_248, "kv cache": 2**30}
    # a token: keys and values, 32 layers, 8 heads of 128, 2 bytes = 128 KiB
    assert memory.kv_cache_bytes(llama, 1) == 128 * 1024
    assert memory.kv_cache_bytes(llama, 4096, batch=16) == 16 * 4096 * 128 * 1024
    for bits, share in ((32, 4), (8, 1), (4, 0.5)):
        assert memory.inference_memory(llama, bits, 1)["weights"] == share * parameters(llama).total


def test_sharding_divides_the_states_alone():
    llama = preset("llama-3-8b")
    one = memory.training_memory(llama, 1, 1024, "bfloat16", base=1e9)
    four = memory.training_memory(llama, 1, 1024, "bfloat16", base=1e9, shards=4)
    for part in ("weights", "gradients", "optimizer", "bfloat16 copy"):
        assert four[part] == one[part] / 4
    for part in ("activations", "working space", "process"):
        assert four[part] == one[part]


def test_lora_by_hand():
    gpt2 = preset("gpt2")
    d = 768
    # rank 8 on query, key, value, out (768×768 each), up and down (768×3072): r·(in + out) weights, 16 bytes each
    adapters = 12 * 8 * (4 * 2 * d + 2 * 5 * d)
    parts = memory.lora_memory(gpt2, 1, 128, rank=8)
    assert parts["adapters"] == 16 * adapters
    assert parts["frozen weights"] == 2 * 124_439_808


@pytest.mark.parametrize("arguments, said", [
    (dict(batch=0, context=8), "batch is 0"), (dict(batch=1, context=-5), "context is -5"),
    (dict(batch=1, context=8, precision="float16"), "float16"), (dict(batch=1, context=8, optimizer="sgdm"), "sgdm"),
])
def test_impossible_numbers_are_refused(arguments, said):
    with pytest.raises(RequestError, match=said):
        memory.training_memory(preset("gpt2"), **arguments)
