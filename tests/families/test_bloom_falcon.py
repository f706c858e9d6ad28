"""BLOOM and Falcon: in float32 our logits are transformers' within 1e-4, whichever of the two wrote the directory.

transformers computes Falcon's ALiBi as published through scaled_dot_product_attention, its default; its "eager" path
adds the penalties twice (in 5.23: once to the scores, once in the mask).
"""

import json

import pytest
import torch
import transformers
from number_tokenizer import Numbers
from safetensors.torch import load_file, save_file
from table import describe, record

from llmwright import families
from llmwright.checkpoint import directory
from llmwright.engine.generate import generate
from llmwright.engine.sampler import GREEDY
from llmwright.errors import RequestError
from llmwright.model.build import new
from llmwright.model.cache import KVCache

describe("bloom", "BLOOM", "Le Scao et al. 2022",
         "decoder; ALiBi; LayerNorm, one on the embeddings; GELU; biases; tied embeddings")
describe("falcon", "Falcon 7B, 11B, 40B, 180B, RW", "Almazrouei et al. 2023",
         "decoder; rotary or ALiBi; attention and feed-forward parallel behind one LayerNorm or two, or in turn; "
         "multi-query, grouped or multi-head; GELU")

COMMON = dict(vocab_size=131, hidden_size=64, bos_token_id=0, eos_token_id=0, initializer_range=0.15)
BLOOM = dict(COMMON, n_layer=3, n_head=4)
FALCON = dict(COMMON, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=48)
RW = dict(FALCON, alibi=True, multi_query=False, parallel_attn=False, bias=True)
NEW = dict(FALCON, new_decoder_architecture=True)

CASES = {
    "bloom": ("bloom", BLOOM),
    "bloom, 8 heads, untied": ("bloom", dict(BLOOM, n_head=8, tie_word_embeddings=False, layer_norm_epsilon=1e-3)),
    "bloom, heads no power of two": ("bloom", dict(BLOOM, hidden_size=72, n_head=6)),
    "bloom, 12 heads": ("bloom", dict(BLOOM, hidden_size=96, n_head=12)),
    "falcon 7b": ("falcon", FALCON),
    "falcon 7b, biases, untied": ("falcon", dict(FALCON, bias=True, tie_word_embeddings=False, ffn_hidden_size=96)),
    "falcon 7b, theta": (
        "falcon", dict(FALCON, rope_parameters={"rope_type": "default", "rope_theta": 300.0}, activation="relu")),
    "falcon 7b, yarn": (
        "falcon", dict(FALCON, rope_parameters={"rope_type": "yarn", "rope_theta": 300.0, "factor": 4.0,
                                                "original_max_position_embeddings": 12})),
    "falcon 7b, linear": (
        "falcon", dict(FALCON, rope_parameters={"rope_type": "linear", "rope_theta": 300.0, "factor": 4.0})),
    "falcon, multi-head": ("falcon", dict(FALCON, multi_query=False, layer_norm_epsilon=1e-3)),
    "falcon, in turn": ("falcon", dict(FALCON, parallel_attn=False, multi_query=True)),
    "falcon 40b": ("falcon", dict(NEW, num_kv_heads=2)),
    "falcon 40b, one kv head": ("falcon", dict(NEW, num_kv_heads=1, bias=True)),
    "falcon 40b, all heads": ("falcon", dict(NEW, num_kv_heads=4)),
    "falcon 11b": ("falcon", dict(NEW, num_kv_heads=2, num_ln_in_parallel_attn=1)),
    "falcon rw": ("falcon", RW),
    "falcon rw, slopes that bfloat16 rounds": ("falcon", dict(RW, hidden_size=96, num_attention_heads=12)),
    "falcon 7b with alibi": ("falcon", dict(FALCON, alibi=True)),
}
KINDS = {"bloom": (transformers.BloomConfig, "eager"), "falcon": (transformers.FalconConfig, "sdpa")}
TOLERANCE = dict(rtol=0, atol=1e-4)


def make(case: str):
    """A transformers model with every parameter random, biases and norms too, so that a forgotten one shows."""
    torch.manual_seed(0)
    family, options = CASES[case]
    config, attention = KINDS[family]
    model = transformers.AutoModelForCausalLM.from_config(config(**options), attn_implementation=attention).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.normal_(1.0 if "ln_" in name or "layernorm" in name else 0.0, 0.2)
    return model


@pytest.fixture(params=CASES)
def both(request, tmp_path):
    theirs = make(request.param)
    theirs.save_pretrained(tmp_path / "theirs")
    return theirs, directory.load(tmp_path / "theirs")


def ids(rows: int = 3, length: int = 48) -> torch.Tensor:
    return torch.randint(0, 131, (rows, length), generator=torch.Generator().manual_seed(1))


def close(ours, check: str, made: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(made, wanted, **TOLERANCE)
    record(ours.config.family, check, (made - wanted).abs().max())


@torch.no_grad()
def test_logits_equal_over_the_whole_context(both):
    theirs, ours = both
    wanted = theirs(ids()).logits
    assert wanted.std() > 0.5  # a distribution worth comparing
    close(ours, "logits", ours(ids()), wanted)


@torch.no_grad()
def test_logits_equal_with_padding_on_the_left(both):
    theirs, ours = both
    padding = torch.tensor([0, 7, 30])[:, None]
    seen = torch.arange(48) >= padding
    positions = (torch.arange(48) - padding).clamp(min=0)
    placed = {"position_ids": positions} if theirs.config.model_type == "falcon" else {}
    wanted = theirs(ids(), attention_mask=seen.long(), **placed).logits
    mask = (seen[:, None, :] | torch.eye(48, dtype=torch.bool))[:, None]
    close(ours, "padded", ours(ids(), positions=positions, mask=mask)[seen], wanted[seen])


@torch.no_grad()
def test_logits_equal_with_a_cache_filled_in_uneven_steps_beside_padding(both):
    theirs, ours = both
    close(ours, "cache", in_steps(ours, ids()), theirs(ids()).logits)
    padding = torch.tensor([0, 7, 10])[:, None]  # what the engine does with prompts of unequal length
    seen = torch.arange(48) >= padding
    placed = {"position_ids": (torch.arange(48) - padding).clamp(min=0)} if theirs.config.model_type == "falcon" else {}
    wanted = theirs(ids(), attention_mask=seen.long(), **placed).logits
    close(ours, "cache", in_steps(ours, ids(), padding)[seen], wanted[seen])


def in_steps(model, input_ids, padding=None):
    cache, made = KVCache(model.config, len(input_ids), 48), []
    for part in input_ids.split([11, 1, 1, 5, 30], dim=1):
        start, end = cache.length, cache.length + part.shape[1]
        mask = positions = None
        if padding is not None:
            queries = torch.arange(start, end)
            positions = (queries - padding).clamp(min=0)
            seen = torch.arange(end) >= padding  # (B, S)
            mask = (seen[:, None] | (queries[:, None] == torch.arange(end)))[:, None]  # (B, 1, T, S)
        made.append(model(part, positions=positions, mask=mask, cache=cache))
    assert cache.length == 48
    return torch.cat(made, 1)


@torch.no_grad()
def test_greedy_text_is_theirs_alone_and_beside_a_longer_prompt(both):
    theirs, ours = both
    prompts = [ids()[0, :20].tolist(), ids()[1, :9].tolist()]
    results = generate(ours, Numbers(), prompts, max_tokens=24, sampling=GREEDY)
    for prompt, result in zip(prompts, results):
        wanted = theirs.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=24, do_sample=False,
            pad_token_id=0, eos_token_id=None,
        )
        wanted = wanted[0, len(prompt) :].tolist()
        stop = wanted.index(0) + 1 if 0 in wanted else 24  # our engine ends at the end token
        assert result.ids == wanted[:stop]
    record(ours.config.family, "greedy text")


@torch.no_grad()
def test_what_we_save_they_load_whole_and_with_the_same_logits(both, tmp_path):
    theirs, ours = both
    directory.save(ours, tmp_path / "ours")
    again, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation=KINDS[ours.config.family][1]
    )
    assert type(again) is type(theirs)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    close(ours, "saved", again.eval()(ids()).logits, theirs(ids()).logits)
    for name, p in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], p), name


def test_gradients_equal(both):
    theirs, ours = both
    input_ids = ids(2, 20)
    for model in (theirs, ours):
        logits = model(input_ids)
        logits = logits if torch.is_tensor(logits) else logits.logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten()).backward()
    wanted = theirs.get_input_embeddings().weight.grad
    difference = (ours.embed.weight.grad - wanted).abs().max() / wanted.abs().max()
    assert difference < 1e-4
    record(ours.config.family, "gradients", difference)


def test_a_configuration_survives_the_way_there_and_back(both):
    theirs, ours = both
    written = json.loads(json.dumps(families.write_config(ours.config)))
    assert families.read_config(written) == ours.config
    again = type(theirs.config)(**written)
    assert families.read_config(json.loads(again.to_json_string())) == ours.config  # and through their own files
    record(ours.config.family, "config")


@torch.no_grad()
def test_falcons_penalties_are_those_of_transformers_far_from_the_beginning():
    """Beyond 256 places bfloat16 has no name for each; their rounding is the published model's."""
    from transformers.models.falcon.modeling_falcon import build_alibi_tensor

    ours = new(families.read_config({"model_type": "falcon", **RW, "num_attention_heads": 16}))
    seen = torch.arange(2000)[None] >= torch.tensor([[0], [700]])
    wanted = build_alibi_tensor(seen.long(), 16, torch.float32).view(2, 16, 1, -1) / 2  # head width 4
    positions = (torch.arange(2000) - torch.tensor([[0], [700]])).clamp(min=0)
    assert torch.equal(ours.positions.bias(positions, 2000, True), wanted)
    assert torch.equal(ours.positions.bias(positions[:, -3:], 2000, True), wanted)


@torch.no_grad()
def test_bloom_as_its_authors_published_it(tmp_path):
    """The bare model's weight names, the sizes under their other names."""
    theirs = make("bloom")
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items() if name != "lm_head.weight"}
    save_file(bare, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    for ours, published in (("hidden_size", "n_embed"), ("n_head", "num_attention_heads")):
        config[published] = config.pop(ours)
    config |= {"n_inner": None, "offset_alibi": 100, "seq_length": 2048}
    (tmp_path / "config.json").write_text(json.dumps(config))
    made = directory.load(tmp_path)
    assert made.config.context == 2048
    torch.testing.assert_close(made(ids()), theirs(ids()).logits, **TOLERANCE)


@pytest.mark.parametrize("change, said", [
    (dict(BLOOM, model_type="bloom", apply_residual_connection_post_layernorm=True), "apply_residual_connection"),
    (dict(BLOOM, model_type="bloom", n_inner=100), "n_inner = 100"),
    (dict(BLOOM, model_type="bloom", n_head=5), "not a multiple"),
    (dict(FALCON, model_type="falcon", num_attention_heads=5), "not a multiple"),
    (dict(FALCON, model_type="falcon", activation="tanh"), "activation = 'tanh'"),
    (dict(FALCON, model_type="falcon", num_ln_in_parallel_attn=2), "num_ln_in_parallel_attn = 2"),
    (dict(FALCON, model_type="falcon", multi_query=False, num_kv_heads=2), "num_kv_heads = 2"),
    (dict(NEW, model_type="falcon", parallel_attn=False), "parallel_attn = False"),
    (dict(NEW, model_type="falcon", num_kv_heads=3), "n_kv_heads 3"),
    (dict(FALCON, model_type="falcon", rope_scaling={"rope_type": "swirl"}), "swirl"),
])
def test_what_no_model_of_the_family_has_is_one_clear_line(change, said):
    with pytest.raises(RequestError, match=said) as caught:
        families.read_config(change)
    assert "\n" not in str(caught.value)
