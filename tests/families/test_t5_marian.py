"""Encoder-decoder families: in float32 our logits are transformers' within 1e-4, whichever of the two wrote the files."""

import json
import math

import pytest
import torch
import transformers
from number_tokenizer import Numbers
from safetensors.torch import load_file, save_file
from table import describe, record

from llmwright import families
from llmwright.checkpoint import directory
from llmwright.engine.beam import Beams
from llmwright.engine.generate import generate
from llmwright.engine.sampler import Sampling
from llmwright.errors import RequestError
from llmwright.families.marian import MARIAN
from llmwright.families.t5 import T5
from llmwright.model.build import new
from llmwright.model.cache import KVCache

describe(
    "t5", "T5 1.0 and 1.1, FLAN-T5", "Raffel et al. 2020; Chung et al. 2022",
    "encoder-decoder; relative position buckets; RMSNorm before each part; ReLU, or GELU with a gate; no biases",
)
describe(
    "marian", "the transformer of 2017, OPUS-MT", "Vaswani et al. 2017; Junczys-Dowmunt et al. 2018",
    "encoder-decoder; sinusoidal positions; LayerNorm after each addition; ReLU, GELU or SiLU; biases; one table",
)

TOLERANCE = dict(rtol=0, atol=1e-4)
VOCABULARY, PAD, END = 131, 0, 1
SIZES = dict(vocab_size=VOCABULARY, pad_token_id=PAD, eos_token_id=END, decoder_start_token_id=PAD, d_model=48)
T5_SIZES = dict(
    **SIZES, d_kv=16, d_ff=80, num_layers=3, num_decoder_layers=2, num_heads=4, relative_attention_num_buckets=8,
    relative_attention_max_distance=20,
)
MARIAN_SIZES = dict(
    **SIZES, encoder_layers=3, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
    encoder_ffn_dim=80, decoder_ffn_dim=80, max_position_embeddings=64, forced_eos_token_id=None,
)
CASES = {
    "t5": dict(T5_SIZES),
    "t5 narrow heads": dict(T5_SIZES, d_kv=8, layer_norm_epsilon=1e-3),
    "t5 1.1": dict(T5_SIZES, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "t5 1.1 with a head of its own": dict(T5_SIZES, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "t5 silu": dict(T5_SIZES, feed_forward_proj="gated-silu"),
    "marian 2017": dict(MARIAN_SIZES, activation_function="relu", scale_embedding=True),
    "marian silu": dict(MARIAN_SIZES, activation_function="silu", scale_embedding=True),
    "marian gelu, unscaled": dict(MARIAN_SIZES, activation_function="gelu"),
}
FAMILY = {"t5": (transformers.T5Config, transformers.T5ForConditionalGeneration),
          "marian": (transformers.MarianConfig, transformers.MarianMTModel)}


def make(case: str, seed: int = 0):
    """A transformers model with every parameter random, biases and norms too, so that a forgotten one shows."""
    torch.manual_seed(seed)
    config, model = FAMILY[case.split()[0]]
    model = model._from_config(config(**CASES[case]), attn_implementation="eager").eval()
    if "of its own" in case:
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    with torch.no_grad():
        for name, p in [*model.named_parameters(), *model.named_buffers()]:
            if p.ndim == 1:
                p.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2)
            elif "logits_bias" in name or "relative" in name:
                p.normal_(0.0, 1.0)
            elif name.endswith("Attention.q.weight"):  # scores are not scaled
                p.normal_(0.0, 0.06)
            elif "embed_positions" not in name:
                p.normal_(0.0, 0.15 if case.startswith("marian") else 0.25)
        if getattr(model.config, "scale_decoder_outputs", False):
            model.shared.weight.normal_()
            for name, p in model.named_parameters():
                if name.endswith((".o.weight", ".wo.weight")):  # more than the last token is heard in the next
                    p.mul_(4)
    return model


@pytest.fixture(params=CASES)
def both(request, tmp_path):
    theirs = make(request.param)
    theirs.save_pretrained(tmp_path / "theirs")
    return theirs, directory.load(tmp_path / "theirs")


def ids(rows: int = 3, length: int = 40, seed: int = 1) -> torch.Tensor:
    return torch.randint(2, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def target(rows: int = 3, length: int = 36) -> torch.Tensor:
    """Begins with the start token."""
    return torch.cat((torch.full((rows, 1), PAD), ids(rows, length - 1, seed=2)), dim=1)


def family(model) -> str:
    return model.config.model_type


@torch.no_grad()
def test_logits_equal(both):
    theirs, ours = both
    wanted = theirs(input_ids=ids(), decoder_input_ids=target()).logits
    assert wanted.std() > 0.5  # a distribution worth comparing
    found = ours(ids(), target())
    torch.testing.assert_close(found, wanted, **TOLERANCE)
    record(family(theirs), "logits", (found - wanted).abs().max())


@torch.no_grad()
def test_logits_equal_for_sources_of_unequal_length(both):
    theirs, ours = both
    mask = torch.arange(40) < torch.tensor([40, 33, 6])[:, None]
    wanted = theirs(input_ids=ids(), attention_mask=mask.long(), decoder_input_ids=target()).logits
    found = ours(ids(), target(), mask)
    torch.testing.assert_close(found, wanted, **TOLERANCE)
    alone = ours(ids()[2:, :6], target()[2:])
    torch.testing.assert_close(found[2:], alone, **TOLERANCE)  # padding is not seen
    record(family(theirs), "padded", (found - wanted).abs().max())


@torch.no_grad()
def test_logits_equal_with_a_cache_filled_in_uneven_steps(both):
    theirs, ours = both
    mask = torch.arange(40) < torch.tensor([40, 33, 6])[:, None]
    memory, cache = ours.encode(ids(), mask, keep=True), KVCache(ours.config, 3, 36)
    parts = [ours.logits(ours.hidden(part, memory, cache=cache)) for part in target().split([9, 1, 1, 5, 20], dim=1)]
    wanted = theirs(input_ids=ids(), attention_mask=mask.long(), decoder_input_ids=target()).logits
    torch.testing.assert_close(torch.cat(parts, 1), wanted, **TOLERANCE)
    record(family(theirs), "cache", (torch.cat(parts, 1) - wanted).abs().max())


@pytest.mark.parametrize("beams", [None, 4])
@torch.no_grad()
def test_text_is_theirs_greedy_and_by_beams_alone_and_beside_a_longer_source(both, beams):
    theirs, ours = both
    sources = [ids()[0, :20].tolist(), ids()[1, :9].tolist()]
    varied = Sampling(0.0, repetition_penalty=1.5)  # random models would say one token for ever
    results = generate(ours, Numbers(), sources, max_tokens=24, sampling=varied, beams=Beams(beams) if beams else None)
    for source, result in zip(sources, results):
        wanted = theirs.generate(
            torch.tensor([source]), max_new_tokens=24, max_length=None, do_sample=False, num_beams=beams or 1,
            repetition_penalty=1.5,
        )[0, 1:].tolist()
        assert result.ids == wanted[: wanted.index(END) + 1 if END in wanted else None]
        assert beams or len(set(result.ids)) > 2
    record(family(theirs), "greedy text")


@torch.no_grad()
def test_what_we_save_they_load_whole_and_with_the_same_logits(both, tmp_path):
    theirs, ours = both
    directory.save(ours, tmp_path / "ours")
    again, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    assert type(again) is type(theirs)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    for name, p in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], p), name
    wanted = theirs(input_ids=ids(), decoder_input_ids=target()).logits
    found = again.eval()(input_ids=ids(), decoder_input_ids=target()).logits
    torch.testing.assert_close(found, wanted, **TOLERANCE)
    assert again.generation_config.decoder_start_token_id == PAD
    record(family(theirs), "saved", (found - wanted).abs().max())


def test_gradients_equal(both):
    theirs, ours = both
    wanted_tokens = ids(2, 20, seed=3)
    logits = theirs(input_ids=ids(2, 20), decoder_input_ids=target(2, 20)).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted_tokens.flatten(), reduction="sum").backward()
    ours.cross_entropy(ours.hidden(target(2, 20), ours.encode(ids(2, 20))), wanted_tokens).backward()
    # the row of padding is left out: theirs learns nothing from being read, though each target begins with it
    for found, wanted in ((ours.embed.weight.grad[1:], theirs.get_input_embeddings().weight.grad[1:]),
                          (ours.encoder.blocks[0].attention.key.weight.grad, first_key(theirs).weight.grad)):
        # a gradient sums over many paths in another order than theirs: relative to its largest entry
        difference = (found - wanted).abs().max() / wanted.abs().max()
        assert difference < 1e-4
        record(family(theirs), "gradients", difference)


def first_key(theirs):
    if family(theirs) == "t5":
        return theirs.encoder.block[0].layer[0].SelfAttention.k
    return theirs.model.encoder.layers[0].self_attn.k_proj


def test_a_configuration_survives_the_way_there_and_back(both):
    theirs, ours = both
    written = json.loads(json.dumps(families.write_config(ours.config)))
    read = families.find(family(theirs)).fit(families.read_config(written), stored_names(ours))
    assert read == ours.config
    # and theirs through ours: every field, but those that say how it was saved
    there = type(theirs.config)(**{k: v for k, v in written.items() if k != "model_type"}).to_dict()
    here = theirs.config.to_dict()
    saving = {"architectures", "dtype"}
    assert {key: there[key] for key in here.keys() - saving} == {key: here[key] for key in here.keys() - saving}
    record(family(theirs), "config")


def stored_names(ours) -> set[str]:
    return {rule.theirs for rule in families.find(ours.config.family).rules(ours.config)}


@torch.no_grad()
def test_files_as_google_published_them_repeat_the_table_and_carry_a_head(tmp_path):
    theirs = make("t5 1.1 with a head of its own")
    theirs.save_pretrained(tmp_path)
    tensors, said = load_file(tmp_path / "model.safetensors"), json.loads((tmp_path / "config.json").read_text())
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        tensors[name] = tensors["shared.weight"].clone()
    tensors["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.randn(8, 4)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for key in ("scale_decoder_outputs", "dense_act_fn", "is_gated_act"):
        del said[key]
    (tmp_path / "config.json").write_text(json.dumps(said | {"tie_word_embeddings": False}))
    ours = directory.load(tmp_path)
    assert not ours.config.tie_embeddings
    wanted = theirs(input_ids=ids(), decoder_input_ids=target()).logits
    torch.testing.assert_close(ours(ids(), target()), wanted, **TOLERANCE)


@torch.no_grad()
def test_an_old_t5_repeats_its_table_as_the_head(tmp_path):
    theirs = make("t5")
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["shared.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ours = directory.load(tmp_path)
    assert ours.config.tie_embeddings and ours.config.head.scale == 48**-0.5
    wanted = theirs(input_ids=ids(), decoder_input_ids=target()).logits
    torch.testing.assert_close(ours(ids(), target()), wanted, **TOLERANCE)


@torch.no_grad()
def test_marian_without_a_bias_on_the_logits_loads_here_and_there(tmp_path):
    ours = new(MARIAN.read(CASES["marian 2017"]), seed=3).eval()
    assert ours.head.bias is None
    directory.save(ours, tmp_path)
    assert "final_logits_bias" not in load_file(tmp_path / "model.safetensors")
    assert directory.load(tmp_path).head.bias is None
    theirs, report = transformers.MarianMTModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    wanted = theirs.eval()(input_ids=ids(), decoder_input_ids=target()).logits
    torch.testing.assert_close(ours(ids(), target()), wanted, **TOLERANCE)


def test_new_t5_weights_have_the_deviations_of_the_publishers():
    sizes = dict(T5_SIZES, d_model=96, d_ff=160, num_layers=1, num_decoder_layers=1)
    torch.manual_seed(0)
    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes)).state_dict()
    config = T5.read(sizes)
    ours = new(config).state_dict()
    for rule in T5.rules(config):
        found, wanted = (w.square().mean().sqrt().item() for w in (ours[rule.ours[0]], theirs[rule.theirs]))
        few = theirs[rule.theirs].numel() < 100  # the buckets
        assert math.isclose(found, wanted, rel_tol=0.4 if few else 0.05), rule.theirs


@pytest.mark.parametrize("name, change, said", [
    ("t5", {"feed_forward_proj": "gated-tanh"}, "feed_forward_proj = 'gated-tanh' is not supported"),
    ("t5", {"dense_act_fn": "silu"}, "dense_act_fn = 'silu' disagrees"),
    ("t5", {"is_encoder_decoder": False}, "is_encoder_decoder = False"),
    ("t5", {"d_model": None}, "d_model is missing"),
    ("t5", {"num_decoder_layers": 0}, "num_decoder_layers = 0"),
    ("t5", {"dropout_rate": 2}, "dropout is 2"),
    ("marian", {"normalize_before": True}, "normalize_before = True is not supported"),
    ("marian", {"layernorm_embedding": True}, "layernorm_embedding = True"),
    ("marian", {"normalize_embedding": True}, "normalize_embedding = True"),
    ("marian", {"add_final_layer_norm": True}, "add_final_layer_norm = True"),
    ("marian", {"static_position_embeddings": False}, "static_position_embeddings = False"),
    ("marian", {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings = False"),
    ("marian", {"decoder_vocab_size": 77}, "decoder_vocab_size = 77"),
    ("marian", {"decoder_ffn_dim": 12}, "decoder_ffn_dim = 12"),
    ("marian", {"decoder_attention_heads": 2}, "decoder_attention_heads = 2"),
    ("marian", {"encoder_attention_heads": 5, "decoder_attention_heads": 5}, "not a multiple"),
    ("marian", {"encoder_layerdrop": 0.1}, "encoder_layerdrop = 0.1"),
    ("marian", {"activation_function": "tanh"}, "activation_function = 'tanh'"),
    ("marian", {"decoder_start_token_id": None}, "decoder_start_token_id is missing"),
])
def test_what_is_not_supported_is_one_line_that_names_it(name, change, said):
    sizes = {"t5": T5_SIZES, "marian": MARIAN_SIZES}[name]
    with pytest.raises(RequestError, match=said) as caught:
        families.read_config({"model_type": name, **sizes, **change})
    assert "\n" not in str(caught.value)
