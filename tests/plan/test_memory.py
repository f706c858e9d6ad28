"""Bytes against cases worked by hand."""

from dataclasses import replace

import pytest

from llmwright.errors import RequestError
from llmwright.plan import memory
from llmwright.plan.parameters import parameters
from llmwright.plan.presets import preset
from llmwright.plan.shape import Shape, typical


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
        return sum(v for k, v in parts.items() if k in ("weights", "bfloat16 copy", "gradients", "optimizer"))

    assert states("float32", "adamw") == 16 * n  # weight, gradient, two states
    assert states("bfloat16", "adamw") == 16 * n + 2 * matrices
    assert states("float32", "muon") == 16 * n - 4 * matrices
    assert states("float32", "adamw8bit") == 10 * n
    assert 16 <= states("bfloat16", "adamw") / n <= 20  # the usual rule for mixed precision


def test_a_billion_parameters():
    shape = typical(1e9)
    assert memory.inference_memory(shape, 32, 1)["weights"] == pytest.approx(4e9, rel=0.002)
    parts = memory.training_memory(shape, 1, 2048, "float32", "adamw")
    parts.pop("never at once")  # the rule adds up what there is at any time
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


def test_peak_is_at_the_end_of_the_forward_or_of_the_backward_pass():
    gpt2, n, matrices = preset("gpt2"), 124_439_808, 12 * 12 * 768 * 768
    states = 12 * n + 2 * matrices

    # one token: nothing but the states and, at the end of the backward pass, the gradients
    assert sum(memory.training_memory(gpt2, 1, 1, "bfloat16").values()) == states + 4 * n
    # accumulating in a model with a small head: the copy's new gradients come beside the sum of the old ones
    small = Shape("small", 64, 768, 12, 12, 12, 64, 3072, 8)
    more = 2 * parameters(small).block_matrices
    once, twice = (sum(memory.training_memory(small, 1, 1, "bfloat16", accumulate=k).values()) for k in (1, 2))
    assert twice - once == more
    # many tokens: the end of the forward pass, without gradients but the head's
    parts = memory.training_memory(gpt2, 64, 1024, "bfloat16")
    assert sum(parts.values()) == states + parts["activations"] + parts["working space"]
    more = memory.training_memory(gpt2, 64, 1024, "bfloat16", accumulate=2)
    assert sum(more.values()) == sum(parts.values()) + 4 * n


def test_loss_never_holds_all_logits():
    gpt2, tokens, head = preset("gpt2"), 64 * 1024, 50_257 * 768
    # 16 MiB of logits, the head in bfloat16 and a product of its size, its float32 gradient, the states' gradient
    assert memory.working_bytes(gpt2, 64, 1024, "bfloat16") == 2**24 + 8 * head + 2 * tokens * 768
    assert memory.working_bytes(gpt2, 64, 1024, "bfloat16") < tokens * 50_257 * 4 / 10


def test_checkpointing_keeps_each_blocks_input_and_one_block():
    gpt2 = preset("gpt2")
    block = memory.block_activation_bytes(gpt2, "bfloat16", 1024)
    # 4D around the norms, 4D in attention, 8D in the feed-forward: 16·768 numbers; 4 statistics and 12 log-sum-exps
    assert block == 2 * 16 * 768 + 4 * (4 + 12)
    full = memory.activation_bytes(gpt2, 8, 1024, "bfloat16")
    assert full == 8192 * (12 * block + 2 * 2 * 768)
    assert memory.activation_bytes(gpt2, 8, 1024, "bfloat16", True) == 8192 * (12 * 2 * 768 + block + 2 * 2 * 768)


@pytest.mark.parametrize("arguments, said", [
    (dict(batch=0, context=8), "batch is 0"), (dict(batch=1, context=-5), "context is -5"),
    (dict(batch=1, context=8, precision="float16"), "float16"), (dict(batch=1, context=8, optimizer="sgdm"), "sgdm"),
])
def test_impossible_numbers_are_refused(arguments, said):
    with pytest.raises(RequestError, match=said):
        memory.training_memory(preset("gpt2"), **arguments)


TINY = Shape("tiny", vocab_size=10, d_model=4, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=2, d_ff=6, context=8)


@pytest.mark.parametrize("change, numbers, floats", [
    # two norms' inputs and results 4·4, query and result 2·4, key and value 2·2, feed-forward 3·6;
    # statistics of 2 norms, and 2 heads' log-sum-exp
    ({}, 16 + 8 + 4 + 18, 2 + 2),
    (dict(residual="sandwich"), 24 + 8 + 4 + 18, 4 + 2),  # two more norms keep their inputs
    (dict(residual="parallel"), 8 + 8 + 4 + 18, 1 + 2),  # one norm, one result for both halves
    (dict(residual="parallel_two_norms"), 12 + 8 + 4 + 18, 2 + 2),  # one input, two results
    (dict(norm="layer"), 16 + 8 + 4 + 18, 4 + 2),  # mean and variance
    (dict(gated=False, activation="relu"), 16 + 8 + 4 + 6, 2 + 2),  # a ReLU keeps its result alone
    (dict(gated=False, activation="gelu"), 16 + 8 + 4 + 12, 2 + 2),
    (dict(activation="gelu_tanh"), 16 + 8 + 4 + 24, 2 + 2),  # gate, act(gate), up, product
    (dict(qk_norm=True), 16 + 8 + 4 + 6 + 18, 2 + 3 + 2),  # query and key from before it
    # two of four experts: each its token, answer, weighted answer, and its feed-forward; in 4 bytes: shares before and
    # after, 8 each way of 4 and 3 each for who is active
    (dict(n_experts=4, active_experts=2), 16 + 8 + 4 + 2 * (12 + 18), 2 + 2 + 8 + 2 * 7),
    (dict(softcap=True), 16 + 16 + 18, 2 + 2 * 8 * 3),  # keys and values for all heads, 3 matrices
])
def test_what_a_block_of_a_family_keeps_by_hand(change, numbers, floats):
    assert memory.block_activation_bytes(replace(TINY, **change), "float32", 8) == 4 * numbers + 4 * floats


def test_numbers_added_to_the_scores_build_the_matrix_while_it_is_small():
    alibi = replace(TINY, positions="alibi")
    small, large = (memory.block_activation_bytes(alibi, "float32", 1024, batch) for batch in (4, 64))
    assert small - large == 4 * (3 * 4 + 4 - (2 * 4 + 2 * 2)) - 4 * 2 + 2 * 1024 * 8


def test_a_window_keeps_its_masks():
    # 8 queries, 4 at a time: the first 4 look at 4 keys, the others at 8: 6 on average, shared by 2 rows
    wide, narrow = (memory.block_activation_bytes(TINY, "float32", 8, 2, window) for window in (8, 4))
    assert narrow - wide == 6 / 2


def test_caches_of_the_three_kinds():
    assert memory.kv_cache_bytes(TINY, 8) == 2 * 2 * 2 * 2 * 8  # keys and values, 2 layers, 2 wide, 2 bytes, 8 tokens
    assert memory.kv_cache_bytes(replace(TINY, kind="encoder"), 8) == 0
    both = replace(TINY, kind="encoder-decoder", n_encoder_layers=3)
    assert memory.kv_cache_bytes(both, 8) == 2 * memory.kv_cache_bytes(TINY, 8)  # its own and the source's
