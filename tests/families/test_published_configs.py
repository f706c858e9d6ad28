"""Configurations as their publishers wrote them: read as transformers reads them, with as many parameters as theirs, the
same rotary frequencies and the same windows."""

import pytest
import torch
import transformers

from llmwright import families
from llmwright.model.rope_scaling import frequencies
from llmwright.plan.parameters import parameters

COMMON = {"attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu", "initializer_range": 0.02,
          "torch_dtype": "bfloat16", "use_cache": True}
LLAMA3 = {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
          "rope_type": "llama3"}
QWEN = dict(COMMON, bos_token_id=151643, eos_token_id=151645, rms_norm_eps=1e-6, rope_theta=1000000, use_sliding_window=False)
GEMMA = dict(COMMON, bos_token_id=2, pad_token_id=0, head_dim=256, rms_norm_eps=1e-6, hidden_activation="gelu_pytorch_tanh")
CONFIGS = {
    "Llama-3.2-3B-Instruct": dict(
        COMMON, model_type="llama", architectures=["LlamaForCausalLM"], bos_token_id=128000,
        eos_token_id=[128001, 128008, 128009], head_dim=128, hidden_size=3072, intermediate_size=8192,
        max_position_embeddings=131072, mlp_bias=False, num_attention_heads=24, num_hidden_layers=28, num_key_value_heads=8,
        pretraining_tp=1, rms_norm_eps=1e-5, rope_scaling=LLAMA3, rope_theta=500000.0, tie_word_embeddings=True,
        vocab_size=128256),
    "SmolLM2-135M": dict(
        COMMON, model_type="llama", architectures=["LlamaForCausalLM"], bos_token_id=0, eos_token_id=0, hidden_size=576,
        initializer_range=0.041666666666666664, intermediate_size=1536, is_llama_config=True, max_position_embeddings=8192,
        mlp_bias=False, num_attention_heads=9, num_hidden_layers=30, num_key_value_heads=3, pretraining_tp=1,
        rms_norm_eps=1e-5, rope_interleaved=False, rope_scaling=None, rope_theta=100000, tie_word_embeddings=True,
        vocab_size=49152),
    "Mistral-7B-v0.1": dict(
        model_type="mistral", architectures=["MistralForCausalLM"], bos_token_id=1, eos_token_id=2, hidden_act="silu",
        hidden_size=4096, initializer_range=0.02, intermediate_size=14336, max_position_embeddings=32768,
        num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=8, rms_norm_eps=1e-5, rope_theta=10000.0,
        sliding_window=4096, tie_word_embeddings=False, torch_dtype="bfloat16", use_cache=True, vocab_size=32000),
    "Mixtral-8x7B-v0.1": dict(
        model_type="mixtral", architectures=["MixtralForCausalLM"], attention_dropout=0.0, bos_token_id=1, eos_token_id=2,
        hidden_act="silu", hidden_size=4096, initializer_range=0.02, intermediate_size=14336,
        max_position_embeddings=32768, num_attention_heads=32, num_experts_per_tok=2, num_hidden_layers=32,
        num_key_value_heads=8, num_local_experts=8, output_router_logits=False, rms_norm_eps=1e-5, rope_theta=1000000.0,
        router_aux_loss_coef=0.02, sliding_window=None, tie_word_embeddings=False, vocab_size=32000),
    "Qwen2.5-Coder-32B-Instruct, with YaRN": dict(
        {k: v for k, v in QWEN.items() if k != "attention_bias"}, model_type="qwen2", hidden_size=5120,
        intermediate_size=27648, max_position_embeddings=32768, max_window_layers=70, num_attention_heads=40,
        num_hidden_layers=64, num_key_value_heads=8, sliding_window=131072, tie_word_embeddings=False, vocab_size=152064,
        rope_scaling={"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}),
    "Qwen3-0.6B": dict(
        QWEN, model_type="qwen3", head_dim=128, hidden_size=1024, intermediate_size=3072, max_position_embeddings=40960,
        max_window_layers=28, num_attention_heads=16, num_hidden_layers=28, num_key_value_heads=8, rope_scaling=None,
        sliding_window=None, tie_word_embeddings=True, vocab_size=151936),
    "gemma-2b": dict(
        GEMMA, model_type="gemma", eos_token_id=1, hidden_act="gelu", hidden_activation=None, hidden_size=2048,
        intermediate_size=16384, max_position_embeddings=8192, num_attention_heads=8, num_hidden_layers=18,
        num_key_value_heads=1, rope_scaling=None, rope_theta=10000.0, vocab_size=256000),
    "gemma-2-9b-it": dict(
        GEMMA, model_type="gemma2", attn_logit_softcapping=50.0, cache_implementation="hybrid", eos_token_id=1,
        final_logit_softcapping=30.0, hidden_act="gelu_pytorch_tanh", hidden_size=3584, intermediate_size=14336,
        max_position_embeddings=8192, num_attention_heads=16, num_hidden_layers=42, num_key_value_heads=8,
        query_pre_attn_scalar=256, rope_theta=10000.0, sliding_window=4096, sliding_window_size=4096, vocab_size=256000),
    "gemma-3-1b-it": dict(
        {k: v for k, v in GEMMA.items() if k != "hidden_act"}, model_type="gemma3_text", attn_logit_softcapping=None,
        cache_implementation="hybrid", eos_token_id=[1, 106], final_logit_softcapping=None, hidden_size=1152,
        intermediate_size=6912, max_position_embeddings=32768, num_attention_heads=4, num_hidden_layers=26,
        num_key_value_heads=1, query_pre_attn_scalar=256, rope_local_base_freq=10000, rope_scaling=None, rope_theta=1000000,
        sliding_window=512, sliding_window_pattern=6, vocab_size=262144),
    "the text of gemma-3-12b": dict(
        {k: v for k, v in GEMMA.items() if k != "hidden_act"}, model_type="gemma3_text", eos_token_id=[1, 106],
        hidden_size=3840, intermediate_size=15360, max_position_embeddings=131072, num_attention_heads=16,
        num_hidden_layers=48, num_key_value_heads=8, query_pre_attn_scalar=256, rope_local_base_freq=10000,
        rope_scaling={"factor": 8.0, "rope_type": "linear"}, rope_theta=1000000, sliding_window=1024,
        sliding_window_pattern=6, vocab_size=262208),
}


@pytest.fixture(scope="module", params=CONFIGS)
def published(request):
    config = transformers.AutoConfig.for_model(**CONFIGS[request.param])
    with torch.device("meta"):
        theirs = transformers.AutoModelForCausalLM.from_config(config)
    return request.param, families.read_config(CONFIGS[request.param]), theirs


def test_parameters_are_as_many_as_theirs(published):
    _, ours, theirs = published
    assert parameters(ours).total == theirs.num_parameters()


def test_rotary_frequencies_are_theirs(published):
    _, ours, theirs = published
    kinds = {"": ours.positions}
    if ours.local_positions:
        kinds = {"full_attention_": ours.positions, "sliding_attention_": ours.local_positions}
    module = type(theirs.model.rotary_emb)(theirs.config)  # off the meta device
    for kind, rotary in kinds.items():
        made, sharpen = frequencies(rotary, ours.attention.head_dim)
        torch.testing.assert_close(made, getattr(module, f"{kind}inv_freq"), rtol=1e-5, atol=0)
        assert sharpen == pytest.approx(getattr(module, f"{kind}attention_scaling"))


def test_windows_are_theirs(published):
    name, ours, theirs = published
    wanted = [getattr(layer.self_attn, "sliding_window", None) for layer in theirs.model.layers]
    if "mistral" in ours.family or "mixtral" in ours.family:
        wanted = [theirs.config.sliding_window] * len(wanted)
    assert list(ours.windows or (None,) * ours.n_layers) == wanted
    if name == "gemma-3-1b-it":
        assert [i for i, window in enumerate(wanted) if window is None] == [5, 11, 17, 23]


def test_what_we_write_of_it_says_the_same_there(published):
    _, ours, theirs = published
    again = transformers.AutoConfig.for_model(**families.write_config(ours))
    assert families.read_config(again.to_dict()) == ours
    for key in ("rope_parameters", "layer_types", "sliding_window", "hidden_act", "head_dim",
                "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping", "eos_token_id",
                "router_aux_loss_coef", "attention_bias", "num_key_value_heads"):
        if not hasattr(theirs.config, key):
            continue
        mine, wanted = getattr(again, key), getattr(theirs.config, key)
        if key == "rope_parameters" and isinstance(wanted.get("factor"), float):
            mine = {name: value for name, value in mine.items() if name in wanted}  # we write defaults out
            wanted = {name: value for name, value in wanted.items() if name != "type"}  # an older name of rope_type
        if key == "head_dim" and wanted is None:
            wanted = ours.d_model // ours.attention.n_heads
        assert mine == wanted, key


def test_contexts_are_those_that_publishers_name():
    contexts = {name: families.read_config(config).context for name, config in CONFIGS.items()}
    assert contexts["Llama-3.2-3B-Instruct"] == contexts["the text of gemma-3-12b"] == 131_072
    assert contexts["Qwen2.5-Coder-32B-Instruct, with YaRN"] == 131_072  # 4 · 32,768
    assert contexts["gemma-2-9b-it"] == 8192 and contexts["Qwen3-0.6B"] == 40_960
