"""No field of a published configuration that changes the computation is lost: transformers' field by field, changed one at
a time, each is read and written back, or refused by name; and what a file leaves out is what transformers takes."""

import json
from dataclasses import replace

import pytest
import torch
import transformers

from number_tokenizer import Numbers

from llmwright import families
from llmwright.checkpoint import directory
from llmwright.engine.prompt import end_ids
from llmwright.errors import RequestError
from llmwright.model.build import new
from llmwright.model.config import RopeScaling, Rotary
from llmwright.model.rope_scaling import frequencies

CLASSES = {
    "llama": transformers.LlamaConfig, "mistral": transformers.MistralConfig, "mixtral": transformers.MixtralConfig,
    "qwen2": transformers.Qwen2Config, "qwen3": transformers.Qwen3Config, "gemma": transformers.GemmaConfig,
    "gemma2": transformers.Gemma2Config, "gemma3_text": transformers.Gemma3TextConfig,
}
SMALL = dict(
    vocab_size=131, hidden_size=64, intermediate_size=96, num_hidden_layers=7, num_attention_heads=4,
    num_key_value_heads=2,
)
ROPE = {"rope_type": "yarn", "rope_theta": 77.0, "factor": 3.0, "original_max_position_embeddings": 16}
WINDOWS = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2, "layer_types": None}
OTHER = {  # another value of each field, and what it needs beside it
    "vocab_size": 140, "hidden_size": 32, "intermediate_size": 112, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 12, "hidden_act": "relu", "hidden_activation": "silu",
    "max_position_embeddings": 99, "initializer_range": 0.3, "rms_norm_eps": 1e-3, "attention_dropout": 0.25,
    "attention_bias": True, "mlp_bias": True, "sliding_window": 6, "use_sliding_window": True, "max_window_layers": 3,
    "layer_types": ["full_attention"] + ["sliding_attention"] * 2 + ["full_attention"] * 4, "query_pre_attn_scalar": 144,
    "attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0, "use_bidirectional_attention": True,
    "num_experts_per_tok": 3, "num_local_experts": 6, "router_aux_loss_coef": 0.5, "router_jitter_noise": 0.1,
    "bos_token_id": 7, "eos_token_id": [8, 9], "pad_token_id": 10, "rope_parameters": ROPE, "is_encoder_decoder": True,
}
BESIDE = {
    "num_hidden_layers": {"layer_types": None}, "hidden_size": {"head_dim": 8}, "num_attention_heads": {"head_dim": 8},
    **{field: WINDOWS for field in WINDOWS},
}
REFUSED = {"use_bidirectional_attention", "is_encoder_decoder", "router_jitter_noise", "attn_logit_softcapping"}
NOTHING = {  # what these change is not what a model computes
    "use_cache", "output_router_logits", "pretraining_tp", "architectures", "dtype", "transformers_version",
    "_name_or_path", "model_type", "return_dict", "output_hidden_states", "output_attentions", "chunk_size_feed_forward",
    "id2label", "label2id", "problem_type", "_sliding_window_pattern",
}


def published(model_type: str, **change) -> dict:
    return CLASSES[model_type](**{**SMALL, **change}).to_dict()


def other(model_type: str, field: str):
    if field == "tie_word_embeddings":
        return not published(model_type)[field]
    if field == "rope_parameters" and model_type == "gemma3_text":
        return {"full_attention": ROPE, "sliding_attention": {"rope_type": "linear", "rope_theta": 9.0, "factor": 2.0}}
    return OTHER[field]


CASES = [(model_type, field) for model_type in CLASSES for field in sorted(published(model_type).keys() - NOTHING)]


@pytest.mark.parametrize("model_type, field", CASES)
def test_each_field_is_read_and_written_back_or_refused_by_name(model_type, field):
    beside = {key: value for key, value in BESIDE.get(field, {}).items() if key in published(model_type) and key != field}
    before = published(model_type, **beside)
    changed = {**published(model_type, **{**beside, field: other(model_type, field)}), field: other(model_type, field)}
    try:
        ours = families.read_config(changed)
    except RequestError as error:
        assert field in str(error) and field in REFUSED
        return
    assert ours != families.read_config(before), "not read"
    written = json.loads(json.dumps(families.write_config(ours)))
    again = CLASSES[model_type](**written).to_dict()
    assert families.read_config(again) == ours
    if field == "rope_parameters":  # defaults are written out
        flat = [(again[field], changed[field])]
        if model_type == "gemma3_text":
            flat = [(again[field][kind], changed[field][kind]) for kind in changed[field]]
        assert all(there.items() <= here.items() for here, there in flat)
    else:
        assert again[field] == changed[field]


@pytest.mark.parametrize("model_type", CLASSES)
def test_what_a_file_leaves_out_is_what_transformers_takes(model_type):
    said, all_said = (families.read_config(c) for c in ({"model_type": model_type, **SMALL}, published(model_type)))
    # a tokenizer's ids are not a matter of the architecture: where a file has none, we take none
    assert replace(said, special_tokens=()) == replace(all_said, special_tokens=())


OLD = {"factor": 3.0, "original_max_position_embeddings": 16, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize("old", [
    {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 77.0},
    {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    {"rope_scaling": {"rope_type": "llama3", **OLD}, "rope_theta": 500_000.0},
    {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}, "rope_theta": 1e6},
    {"rope_scaling": {"rope_type": "default"}, "rope_theta": 9.0},
], ids=str)
@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gemma3_text"])
def test_the_older_spelling_of_rope_scaling_is_read_as_transformers_reads_it(model_type, old):
    theirs = json.loads(CLASSES[model_type](**SMALL, max_position_embeddings=2048, **old).to_json_string())
    assert "rope_scaling" not in theirs
    ours = families.read_config({"model_type": model_type, **SMALL, "max_position_embeddings": 2048, **old})
    wanted = families.read_config(theirs)
    assert (ours.positions, ours.local_positions, ours.context) == (
        wanted.positions, wanted.local_positions, wanted.context)


def test_gemmas_local_base_in_the_older_spelling():
    old = {"rope_local_base_freq": 123.0, "rope_theta": 456.0, "sliding_window_pattern": 3}
    theirs = transformers.Gemma3TextConfig(**SMALL, **old).to_dict()
    ours = families.read_config({"model_type": "gemma3_text", **SMALL, **old})
    assert (ours.positions.theta, ours.local_positions.theta) == (456.0, 123.0)
    assert replace(ours, special_tokens=()) == replace(families.read_config(theirs), special_tokens=())


def test_a_context_is_what_the_scaling_makes_of_it():
    """YaRN and dynamic scaling are written beside the context of the training, linear and Llama 3's beside the new one."""
    def context(scaling, **change):
        c = {"model_type": "llama", **SMALL, "max_position_embeddings": 4096, "rope_scaling": scaling, **change}
        return families.read_config(c).context

    assert context({"rope_type": "yarn", "factor": 4.0}) == 16_384
    assert context({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}) == 4096
    assert context({"rope_type": "dynamic", "factor": 2.0}) == 8192
    assert context({"rope_type": "linear", "factor": 4.0}) == 4096
    assert context({"rope_type": "llama3", **OLD}) == 4096


def test_a_fixed_ntk_scaling_is_written_as_the_base_that_it_is():
    ours = families.read_config({"model_type": "llama", **SMALL})
    scaled = replace(ours, positions=Rotary(10_000.0, scaling=RopeScaling("ntk", 4.0, 2048)))
    again = families.read_config(families.write_config(scaled))
    torch.testing.assert_close(frequencies(again.positions, 16)[0], frequencies(scaled.positions, 16)[0])


def test_all_end_tokens_are_kept():
    ours = families.read_config({"model_type": "llama", **SMALL, "eos_token_id": [5, 6, 7], "bos_token_id": 1})
    assert (ours.special("eos"), ours.specials("eos"), ours.specials("pad")) == (5, (5, 6, 7), ())
    assert families.write_config(ours)["eos_token_id"] == [5, 6, 7]


def test_all_end_tokens_end_a_text_here_and_where_the_directory_is_loaded(tmp_path):
    small = {"vocab_size": 131, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ours = new(families.read_config({"model_type": "llama", **small, "eos_token_id": [5, 6, 7]})).eval()
    assert end_ids(ours, Numbers()) == {5, 6, 7}
    directory.save(ours, tmp_path / "m")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert theirs.generation_config.eos_token_id == [5, 6, 7]
