"""Numbers far beyond what anybody means, and files made to take memory or time: one line at once, or no harm."""

import time

import pytest
from small import model, tokenizer

from llmwright import families
from llmwright.engine import shots
from llmwright.engine.beam import Beams
from llmwright.engine.generate import generate
from llmwright.engine.sampler import GREEDY, Sampling
from llmwright.errors import RequestError

BASE = dict(vocab_size=400, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=96, head_dim=12)
MARIAN = dict(model_type="marian", vocab_size=400, d_model=48, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
              decoder_attention_heads=4, encoder_ffn_dim=96, decoder_ffn_dim=96, activation_function="relu",
              scale_embedding=True, pad_token_id=0)


@pytest.mark.parametrize("option, value", [
    ("top_k", 10**30), ("top_k", float("inf")), ("temperature", 1e39), ("temperature", float("nan")), ("seed", 2**70),
    ("min_tokens", 10**20), ("repetition_penalty", 1e-300), ("presence_penalty", 1e300), ("logit_bias", 3),
    ("bad_words", 3), ("bad_words", [3]), ("logit_bias", {1: float("nan")}),
])
def test_an_option_beyond_all_use_is_refused_by_name(option, value):
    with pytest.raises(RequestError, match=f"^{option}.* is not allowed"):
        Sampling(**{option: value})


@pytest.mark.parametrize("penalty", [1e6, -1e6, float("nan")])
def test_a_length_penalty_that_no_number_holds_is_refused(penalty):
    with pytest.raises(RequestError, match="length_penalty"):
        Beams(2, length_penalty=penalty)


@pytest.mark.parametrize("change, said", [
    (dict(model_type="gemma2", num_hidden_layers=10**12), "num_hidden_layers"),
    (dict(model_type="gemma3_text", num_hidden_layers=10**9), "num_hidden_layers"),
    (dict(model_type="gemma3_text", rope_parameters={"full_attention": 5}), "full_attention"),
    (dict(model_type="llama", head_dim=10**9), "head_dim"),
    (dict(model_type="llama", hidden_size=10**5000), "hidden_size"),
    (dict(model_type="llama", max_position_embeddings=64, rope_scaling=dict(rope_type="yarn", factor=2.0), rope_theta=1),
     "rope_theta"),
    ({**MARIAN, "decoder_start_token_id": "x"}, "decoder_start_token_id"),
    ({**MARIAN, "decoder_start_token_id": -1}, "decoder_start_token_id"),
    ({**MARIAN, "decoder_start_token_id": 400}, "decoder_start_token_id"),
    (dict(model_type="t5", d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4, decoder_start_token_id=[1]),
     "decoder_start_token_id"),
    (dict(model_type="mixtral", num_local_experts=10**8), "num_local_experts"),
    (dict(model_type="qwen2", use_sliding_window=True, sliding_window=8, max_window_layers="x"), "max_window_layers"),
    (dict(model_type="roberta", pad_token_id="x", max_position_embeddings=64), "pad_token_id"),
    (dict(model_type="t5", d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4, relative_attention_num_buckets=1),
     "relative_attention_num_buckets"),
])
def test_a_configuration_made_to_take_memory_is_one_line_at_once(change, said):
    start = time.process_time()
    with pytest.raises(RequestError, match=said) as caught:
        families.read_config({**BASE, **change})
    assert time.process_time() - start < 1 and len(str(caught.value)) < 300


def test_end_tokens_that_the_vocabulary_has_not_are_no_end_tokens():
    config = families.read_config({**BASE, "model_type": "llama", "eos_token_id": [3, 400, -1, 10**20]})
    assert config.specials("eos") == (3,)


def test_a_text_without_a_last_position_takes_memory_as_it_grows():
    made = model("gpt2")  # its context is 64; what has none is asked for a billion
    from test_llm import loaded

    bloom = loaded("bloom").model
    for each in (made, bloom):
        result = generate(each, tokenizer(), "x", max_tokens=10**9, sampling=GREEDY, stop=tuple("abcdefghijklmnop "))[0]
        assert result.finish_reason == "stop" or each is made


def test_a_file_of_aliases_is_refused_without_being_written_out(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    for field in ("instruction: *a8", "examples: [*a8]", "examples: [{input: *a8, output: x}]"):
        (tmp_path / "x.yaml").write_text("\n".join(["instruction: &i hello", *lines, field]).replace("instruction: &i hello\n", ""))
        start = time.process_time()
        with pytest.raises(RequestError) as caught:
            shots.load(tmp_path / "x.yaml")
        assert time.process_time() - start < 2 and len(str(caught.value)) < 500
    (tmp_path / "y.yaml").write_text("examples:\n  - &a0 [x, x]\n" + "".join(
        f"  - &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 12)))
    start = time.process_time()
    with pytest.raises(RequestError, match=r"examples\[0\] must be"):
        shots.load(tmp_path / "y.yaml")
    assert time.process_time() - start < 2


def test_a_sentencepiece_piece_that_is_a_book_is_refused(tmp_path):
    from sentencepiece import sentencepiece_model_pb2

    from llmwright.tokens.load import load

    proto = sentencepiece_model_pb2.ModelProto()
    proto.trainer_spec.model_type = 2
    proto.pieces.add(piece="<unk>", score=0, type=2)
    proto.pieces.add(piece="x" * 200_000, score=-1, type=1)
    (tmp_path / "m.model").write_bytes(proto.SerializeToString())
    start = time.process_time()
    with pytest.raises(RequestError, match="a piece of 200,000 characters"):
        load(tmp_path / "m.model")
    assert time.process_time() - start < 2
