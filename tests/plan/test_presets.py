"""The presets of published models equal what their config.json says, and transformers counts as many parameters."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from llmwright import families
from llmwright.checkpoint import catalogue
from llmwright.errors import RequestError
from llmwright.plan.devices import device
from llmwright.plan.flops import petaflops_days
from llmwright.plan.parameters import parameters
from llmwright.plan.plan import make_plan
from llmwright.plan.presets import PRESETS, preset
from llmwright.plan.shape import shape_of
from llmwright.plan.training import training

LLAMA = dict(model_type="llama", architectures=["LlamaForCausalLM"], rms_norm_eps=1e-5)
SMOLLM2 = dict(LLAMA, max_position_embeddings=8192, vocab_size=49_152, tie_word_embeddings=True)
BERT = dict(model_type="bert", architectures=["BertForMaskedLM"], hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
            intermediate_size=3072, vocab_size=30_522, max_position_embeddings=512, type_vocab_size=2, layer_norm_eps=1e-12,
            hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, hidden_act="gelu")
LARGE = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
ROBERTA = dict(BERT, model_type="roberta", architectures=["RobertaForMaskedLM"], vocab_size=50_265,
               max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1)
T5 = dict(model_type="t5", architectures=["T5ForConditionalGeneration"], vocab_size=32_128, d_kv=64, dropout_rate=0.1,
          feed_forward_proj="relu", relative_attention_num_buckets=32, n_positions=512, layer_norm_epsilon=1e-6)
FLAN = dict(T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)


def t5(kind: dict, d_model: int, num_layers: int, num_heads: int, d_ff: int, d_kv: int = 64) -> dict:
    return dict(kind, d_model=d_model, num_layers=num_layers, num_decoder_layers=num_layers, num_heads=num_heads, d_ff=d_ff,
                d_kv=d_kv)


CONFIGS = {
    "smollm2-360m-instruct": dict(
        SMOLLM2, hidden_size=960, num_hidden_layers=32, num_attention_heads=15, num_key_value_heads=5, intermediate_size=2560),
    "smollm2-1.7b-instruct": dict(
        SMOLLM2, hidden_size=2048, num_hidden_layers=24, num_attention_heads=32, num_key_value_heads=32, intermediate_size=8192),
    "llama-3.2-1b-instruct": dict(
        LLAMA, hidden_size=2048, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, head_dim=64,
        intermediate_size=8192, vocab_size=128_256, max_position_embeddings=131_072, tie_word_embeddings=True),
    "mistral-7b-instruct": dict(
        model_type="mistral", hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=14_336, vocab_size=32_768, max_position_embeddings=32_768, sliding_window=None),
    "mixtral-8x7b-instruct": dict(
        model_type="mixtral", hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=14_336, vocab_size=32_000, max_position_embeddings=32_768, sliding_window=None,
        num_local_experts=8, num_experts_per_tok=2),
    "qwen2.5-0.5b-instruct": dict(
        model_type="qwen2", hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        intermediate_size=4864, vocab_size=151_936, max_position_embeddings=32_768, tie_word_embeddings=True),
    "gemma-3-270m-it": dict(
        model_type="gemma3_text", hidden_size=640, num_hidden_layers=18, num_attention_heads=4, num_key_value_heads=1,
        head_dim=256, intermediate_size=2048, vocab_size=262_144, max_position_embeddings=32_768, sliding_window=512,
        query_pre_attn_scalar=256, layer_types=3 * [*5 * ["sliding_attention"], "full_attention"]),
    "bloom-560m": dict(model_type="bloom", n_embed=1024, n_layer=24, num_attention_heads=16, vocab_size=250_880, seq_length=2048),
    "falcon-7b-instruct": dict(
        model_type="falcon", hidden_size=4544, num_hidden_layers=32, num_attention_heads=71, vocab_size=65_024, multi_query=True,
        parallel_attn=True, new_decoder_architecture=False, bias=False, alibi=False),
    "bert-base-uncased": BERT,
    "bert-large-uncased": dict(BERT, **LARGE),
    "roberta-base": ROBERTA,
    "roberta-large": dict(ROBERTA, **LARGE),
    "all-minilm-l6-v2": dict(BERT, architectures=["BertModel"], hidden_size=384, num_hidden_layers=6, intermediate_size=1536),
    "t5-small": t5(T5, 512, 6, 8, 2048),
    "t5-base": t5(T5, 768, 12, 12, 3072),
    "t5-large": t5(T5, 1024, 24, 16, 4096),
    "t5-3b": t5(T5, 1024, 24, 32, 16_384, d_kv=128),
    "t5-11b": t5(T5, 1024, 24, 128, 65_536, d_kv=128),
    "flan-t5-small": t5(FLAN, 512, 8, 6, 1024),
    "flan-t5-base": t5(FLAN, 768, 12, 12, 2048),
    "flan-t5-large": t5(FLAN, 1024, 24, 16, 2816),
    "flan-t5-xl": t5(FLAN, 2048, 24, 32, 5120),
    "flan-t5-xxl": t5(FLAN, 4096, 24, 64, 10_240),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_preset_is_what_its_configuration_says(name):
    said = shape_of(families.read_config(CONFIGS[name]))
    assert replace(said, name=name, tokens=PRESETS[name].tokens) == PRESETS[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_counts_the_same_parameters(name):
    config = CONFIGS[name]
    kind = getattr(transformers, config.get("architectures", [""])[0], transformers.AutoModelForCausalLM)
    settings = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = kind.from_config(settings) if kind is transformers.AutoModelForCausalLM else kind(settings)
    count = sum(p.numel() for p in model.parameters())
    if config.get("tie_word_embeddings") is False:  # theirs is tied until it reads a file that has a head of its own
        count += model.lm_head.weight.numel()
    assert parameters(preset(name)).total == count


def test_every_model_of_the_catalogue_is_planned_before_it_is_pulled():
    assert not set(catalogue.MODELS) - set(PRESETS)
    assert PRESETS["smollm2-135m-instruct"] == replace(PRESETS["smollm2-135m"], name="smollm2-135m-instruct", tokens=None)
    assert all(preset(entry.hub) is PRESETS[name] for name, entry in catalogue.MODELS.items())


def test_t5_took_a_hundred_petaflop_days():
    """Brown et al. 2020, table D.1, counts 3 FLOPs a parameter and token of an encoder-decoder: 104 for 3B, 1T tokens."""
    plan = make_plan(preset("t5-3b"), training(1e12, context=512), device("h100"))
    assert plan.six_n_d == 3 * 2_851_598_336 * 1e12 and plan.petaflops_days == pytest.approx(104, rel=0.06)
    assert petaflops_days(plan.flops) == pytest.approx(104, rel=0.06)  # counted by its matrices


def test_an_unknown_model_of_the_hub_is_told_the_way():
    with pytest.raises(RequestError, match="flan-t5-basic: .*did you mean flan-t5-base.*pull google/flan-t5-basic"):
        preset("google/flan-t5-basic")


def test_the_help_and_the_page_list_every_preset():
    from llmwright.cli.plan import HELP

    page = (Path(__file__).parents[2] / "docs" / "plan.md").read_text(encoding="utf-8")
    assert set(re.findall(r"[\w.-]+\w", HELP)) >= set(PRESETS)
    assert {word for line in page.splitlines() if line.startswith("|") for word in re.findall(r"[\w.-]+", line)} >= set(PRESETS)
