"""Directories as others publish them: shards, names without a prefix, weights that hold nothing."""

import json

import pytest
import torch
import transformers
from oracle import make
from safetensors.torch import load_file, save_file

from llmwright import families
from llmwright.checkpoint import directory
from llmwright.errors import RequestError

IDS = torch.arange(40)[None]


@pytest.mark.parametrize("case", ["llama grouped", "gpt2"])
@torch.no_grad()
def test_shards_are_read(case, tmp_path):
    theirs = make(case)
    theirs.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    torch.testing.assert_close(directory.load(tmp_path)(IDS), theirs(IDS).logits, rtol=0, atol=1e-4)


@torch.no_grad()
def test_gpt2_as_openai_published_it_has_no_prefix_and_carries_masks(tmp_path):
    theirs = make("gpt2")
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): t for name, t in tensors.items()}
    bare |= {f"h.{i}.attn.bias": torch.ones(1, 1, 48, 48).tril() for i in range(3)}
    save_file(bare, tmp_path / "model.safetensors", metadata={"format": "pt"})
    torch.testing.assert_close(directory.load(tmp_path)(IDS), theirs(IDS).logits, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_tied_head_that_is_stored_again_is_accepted(tmp_path):
    theirs = make("qwen3 tied, biases")
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    torch.testing.assert_close(directory.load(tmp_path)(IDS), theirs(IDS).logits, rtol=0, atol=1e-4)


@torch.no_grad()
def test_bfloat16_weights_are_computed_in_float32_when_asked(tmp_path):
    theirs = make("llama grouped").to(torch.bfloat16)
    theirs.save_pretrained(tmp_path)
    ours = directory.load(tmp_path)
    assert all(p.dtype == torch.float32 for p in ours.parameters())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    torch.testing.assert_close(ours(IDS), theirs(IDS).logits, rtol=0, atol=1e-4)


@torch.no_grad()
def test_bfloat16_compute_is_near_float32(tmp_path):
    theirs = make("qwen3")
    theirs.save_pretrained(tmp_path)
    ours = directory.load(tmp_path, dtype=torch.bfloat16)
    assert ours.matrices()["blocks.0.attention.query.weight"].dtype == torch.bfloat16
    assert ours.embed.weight.dtype == torch.bfloat16
    wanted = theirs(IDS).logits
    # 8 bits of mantissa, three layers of random weights
    assert (ours(IDS) - wanted).norm() < 0.05 * wanted.norm()


LLAMA = {
    "model_type": "llama", "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 8,
}


@pytest.mark.parametrize("change, said", [
    ({"model_type": "lama"}, "did you mean llama"),
    ({"model_type": None}, "not supported"),
    ({"hidden_size": None}, "hidden_size is missing"),
    ({"num_attention_heads": 3}, "not a multiple"),
    ({"num_attention_heads": 0}, "num_attention_heads"),
    ({"num_attention_heads": 4, "num_key_value_heads": 3}, "n_kv_heads"),
    ({"head_dim": 7}, "odd"),
    ({"num_hidden_layers": 0}, "num_hidden_layers = 0"),
    ({"vocab_size": -5}, "vocab_size"),
    ({"vocab_size": "many"}, "vocab_size"),
    ({"hidden_size": 16.5}, "hidden_size"),
    ({"hidden_act": "mish"}, "hidden_act = 'mish'"),
    ({"rope_parameters": {"rope_type": "longrope", "factor": 4}}, "longrope"),
    ({"rope_scaling": {"type": "su", "factor": 2}}, "rope_scaling: rope scaling 'su'"),
    ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor is missing"),
    ({"rope_scaling": {"type": "linear", "factor": "2"}}, "rope_scaling.factor = '2'"),
    ({"rope_scaling": {"type": "llama3", "factor": 8}}, "low_freq_factor and high_freq_factor must be given"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ({"sliding_window": 4096}, "sliding_window = 4096"),
    ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config: weights quantized by gptq"),
    ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": None, "max_window_layers": 0}, "sliding_window is missing"),
    ({"model_type": "qwen2", "layer_types": ["sliding_attention"]}, "use_sliding_window is not true"),
    ({"model_type": "mistral", "layer_types": ["full_attention"] * 2}, "each of the 1 layers"),
    ({"model_type": "mistral", "attention_bias": True}, "attention_bias = True"),
    ({"model_type": "mixtral", "num_experts_per_tok": 9}, "n_active 9 is more than the 8 experts"),
    ({"model_type": "mixtral", "router_jitter_noise": 0.1}, "router_jitter_noise"),
    ({"model_type": "gemma2", "query_pre_attn_scalar": 0}, "query_pre_attn_scalar = 0"),
    ({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ({"model_type": "gemma3"}, "did you mean gemma3_text"),
    ({"rope_parameters": "fast"}, "rope"),
    ({"rms_norm_eps": "small"}, "norm.eps is 'small'"),
    ({"attention_dropout": 1.5}, "dropout is 1.5"),
    ({"rope_theta": "big"}, "rope_theta is 'big'"),
    ({"num_key_value_heads": 1.5}, "n_kv_heads is 1.5"),
    ({"model_type": ["llama"]}, "not supported"),
])
def test_a_configuration_that_is_not_ours_is_one_clear_line(change, said):
    with pytest.raises(RequestError, match=said) as caught:
        families.read_config({**LLAMA, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "3", "{", '"llama"', ""])
def test_a_config_that_is_no_mapping_is_one_clear_line(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RequestError, match="config.json"):
        directory.load(tmp_path)


@pytest.mark.parametrize(
    "change", [{"rope_theta": 7.0}, {"rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}}])
def test_both_places_of_rope_theta_are_read(change):
    assert families.read_config({**LLAMA, **change}).positions.theta == 7.0
    assert json.loads(json.dumps(families.write_config(families.read_config({**LLAMA, **change}))))["rope_theta"] == 7.0
