"""Encoders: in float32 states, pooled states and logits are transformers' within 1e-4, whichever of the two wrote the
files."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from table import describe, record

from llmwright import families
from llmwright.checkpoint import directory
from llmwright.errors import RequestError

describe(
    "bert", "BERT, MiniLM", "Devlin et al. 2019; Wang et al. 2020",
    "encoder; learned positions; token types; LayerNorm on the embeddings and after each addition; GELU; biases; "
    "pooler, or a head that fills masks",
)
describe(
    "roberta", "RoBERTa", "Liu et al. 2019",
    "encoder; as BERT with one token type, positions from 2 on, byte-level BPE",
)
describe("xlm-roberta", "XLM-RoBERTa", "Conneau et al. 2020", "encoder; as RoBERTa, over 100 languages; Unigram")

TOLERANCE = dict(rtol=0, atol=1e-4)
VOCABULARY, CONTEXT = 131, 48
SIZES = dict(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=112, num_hidden_layers=3, num_attention_heads=4,
    max_position_embeddings=CONTEXT, initializer_range=0.15,
)
ROBERTA = dict(
    SIZES, max_position_embeddings=CONTEXT + 2, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2)
CASES = {
    "bert": ("BertForMaskedLM", SIZES),
    "bert model": ("BertModel", SIZES),
    "bert pretraining": ("BertForPreTraining", SIZES),
    "bert tanh gelu": ("BertForMaskedLM", dict(SIZES, hidden_act="gelu_new", layer_norm_eps=1e-3)),
    "bert relu, four types": ("BertForMaskedLM", dict(SIZES, hidden_act="relu", type_vocab_size=4)),
    "bert untied": ("BertForMaskedLM", dict(SIZES, tie_word_embeddings=False)),
    "roberta": ("RobertaForMaskedLM", ROBERTA),
    "roberta model": ("RobertaModel", ROBERTA),
    "roberta relu": ("RobertaForMaskedLM", dict(ROBERTA, hidden_act="relu", layer_norm_eps=1e-5)),
    "roberta untied": ("RobertaForMaskedLM", dict(ROBERTA, tie_word_embeddings=False)),
    "roberta, padding 4": (
        "RobertaForMaskedLM", dict(ROBERTA, pad_token_id=4, max_position_embeddings=CONTEXT + 5)),
    "xlm-roberta": ("XLMRobertaForMaskedLM", ROBERTA),
    "xlm-roberta model": ("XLMRobertaModel", ROBERTA),
}


def make(case: str, seed: int = 0):
    """A transformers model with every parameter random, biases and norms too, so that a forgotten one shows."""
    torch.manual_seed(seed)
    architecture, options = CASES[case]
    kind = getattr(transformers, architecture)
    model = kind(kind.config_class(**options, attn_implementation="eager")).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.normal_(1.0 if "orm" in name and name.endswith("weight") else 0.0, 0.2)
    return model


@pytest.fixture(params=CASES)
def both(request, tmp_path):
    theirs = make(request.param)
    theirs.save_pretrained(tmp_path / "theirs")
    return theirs, directory.load(tmp_path / "theirs")


def ids(rows: int = 3, length: int = CONTEXT) -> torch.Tensor:
    return torch.randint(5, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))


def types(theirs, like: torch.Tensor) -> torch.Tensor:
    n = theirs.config.type_vocab_size
    return torch.randint(0, n, like.shape, generator=torch.Generator().manual_seed(2))


def states(theirs, input_ids, **options) -> torch.Tensor:
    return theirs.base_model(input_ids, **options).last_hidden_state


def logits(theirs, input_ids, **options) -> torch.Tensor:
    found = theirs(input_ids, **options)
    return found.prediction_logits if hasattr(found, "prediction_logits") else found.logits


def near(got: torch.Tensor, wanted: torch.Tensor) -> float:
    torch.testing.assert_close(got, wanted, **TOLERANCE)
    return (got - wanted).abs().max()


@torch.no_grad()
def test_states_and_logits_equal_over_the_whole_context(both):
    theirs, ours = both
    kinds = types(theirs, ids())
    hidden = ours.hidden(ids(), token_types=kinds)
    wanted = states(theirs, ids(), token_type_ids=kinds)
    assert wanted.std() > 0.5  # numbers worth comparing
    record(ours.config.family, "vectors", near(hidden, wanted))
    assert (ours.pooler is not None) == (getattr(theirs.base_model, "pooler", None) is not None)
    if ours.pooler is not None:
        record(ours.config.family, "vectors", near(
            ours.pooled(hidden), theirs.base_model(ids(), token_type_ids=kinds).pooler_output))
    assert (ours.head is None) == type(theirs).__name__.endswith("Model")
    if ours.head is not None:
        wanted = logits(theirs, ids(), token_type_ids=kinds)
        record(ours.config.family, "logits", near(ours(ids(), token_types=kinds), wanted))


@torch.no_grad()
def test_padding_on_the_right_changes_nothing(both):
    theirs, ours = both
    seen = torch.arange(CONTEXT) < torch.tensor([CONTEXT, 31, 5])[:, None]
    input_ids = ids().masked_fill(~seen, theirs.config.pad_token_id)
    got = ours.hidden(input_ids, mask=seen[:, None, None])
    record(ours.config.family, "padded", near(got[seen], states(theirs, input_ids, attention_mask=seen.long())[seen]))
    alone = ours.hidden(input_ids[1:2, :31])
    torch.testing.assert_close(got[1:2, :31], alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_several_texts_in_one_row_are_as_if_alone(both):
    _, ours = both
    lengths = [20, 7, 21]
    segments = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    packed = ours.hidden(ids(1), segments=segments, positions=positions)
    alone = torch.cat([ours.hidden(part) for part in ids(1).split(lengths, 1)], 1)
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_what_we_save_they_load_whole_and_with_the_same_numbers(both, tmp_path):
    theirs, ours = both
    directory.save(ours, tmp_path / "ours")
    assert not (tmp_path / "ours" / "generation_config.json").exists()
    again, report = type(theirs).from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager")
    passed_over = {"cls.seq_relationship.weight", "cls.seq_relationship.bias"}  # the second head of BertForPreTraining
    assert set(report["missing_keys"]) <= passed_over
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    wanted = theirs.state_dict()
    for name, p in again.state_dict().items():
        # untied, transformers 5 has a bias twice and uses the decoder's
        unused = name in passed_over or name.endswith(("predictions.bias", "lm_head.bias"))
        assert unused or torch.equal(p, wanted[name])
    read = states if ours.head is None else logits
    difference = near(read(again.eval(), ids()), read(theirs, ids()))
    record(ours.config.family, "saved", difference or None)
    automatic = transformers.AutoModel if ours.head is None else transformers.AutoModelForMaskedLM
    assert states(automatic.from_pretrained(tmp_path / "ours"), ids()).shape == (3, CONTEXT, 64)


def test_gradients_equal(both):
    theirs, ours = both
    if ours.head is None:
        pytest.skip("no head, no loss")
    targets = ids(2, 20).masked_fill(torch.arange(20) % 5 != 0, -100)
    torch.nn.functional.cross_entropy(logits(theirs, ids(2, 20)).flatten(0, 1), targets.flatten()).backward()
    loss = ours.cross_entropy(ours.hidden(ids(2, 20)), targets) / (targets >= 0).sum()
    loss.backward()
    pairs = [(ours.embed.weight, theirs.get_input_embeddings().weight),
             (ours.blocks[0].attention.key.weight, theirs.base_model.encoder.layer[0].attention.self.key.weight),
             (ours.head.transform.bias, next(p for n, p in theirs.named_parameters()
                                             if n.endswith(("transform.dense.bias", "lm_head.dense.bias"))))]
    for mine, other in pairs:
        # a gradient sums over many paths in another order than theirs: relative to its largest entry
        difference = (mine.grad - other.grad).abs().max() / other.grad.abs().max()
        assert difference < 1e-4
        record(ours.config.family, "gradients", difference)


def test_a_configuration_survives_the_way_there_and_back(both):
    theirs, ours = both
    written = json.loads(json.dumps(families.write_config(ours.config)))
    assert families.read_config(written) == ours.config
    assert written["architectures"] == [type(theirs).__name__]
    again = type(theirs.config)(**{k: v for k, v in written.items() if k not in ("model_type", "architectures")})
    for key, value in theirs.config.to_diff_dict().items():
        if key not in ("architectures", "transformers_version", "dtype", "_attn_implementation", "attn_implementation"):
            assert getattr(again, key) == value, key
    record(ours.config.family, "config")


# files as others publish them


@torch.no_grad()
def test_bert_as_google_published_it(tmp_path):
    """Norms with gamma and beta, positions as a tensor, the table again in the head, and parts that config.json does
    not speak of: a pooler and the second head."""
    theirs = make("bert pretraining")
    theirs.save_pretrained(tmp_path)
    old = {}
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        old[name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    old["bert.embeddings.position_ids"] = torch.arange(CONTEXT)[None]
    old["cls.predictions.decoder.weight"] = old["bert.embeddings.word_embeddings.weight"].clone()
    old["cls.predictions.decoder.bias"] = old["cls.predictions.bias"].clone()
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    change(tmp_path, architectures=["BertForMaskedLM"])
    ours = directory.load(tmp_path)
    assert ours.pooler is None
    near(ours(ids()), logits(theirs, ids()))


@pytest.mark.parametrize("case", ["bert model", "roberta model"])
@torch.no_grad()
def test_names_with_and_without_the_prefix_are_one(case, tmp_path):
    theirs = make(case)
    theirs.save_pretrained(tmp_path)
    prefix = case.split()[0] + "."
    tensors = load_file(tmp_path / "model.safetensors")
    assert not any(name.startswith(prefix) for name in tensors)
    save_file({prefix + n: t for n, t in tensors.items()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    near(directory.load(tmp_path).hidden(ids()), states(theirs, ids()))


@pytest.mark.parametrize("case", ["bert", "roberta"])
@torch.no_grad()
def test_the_files_say_whether_there_is_a_head_and_a_pooler(case, tmp_path):
    """Sentence encoders are published under the name of the architecture they were made from, without its head; and
    some without their pooler."""
    theirs = make(case)
    theirs.base_model.save_pretrained(tmp_path)
    change(tmp_path, architectures=[type(theirs).__name__])
    ours = directory.load(tmp_path)
    assert ours.head is None and ours.pooler is None
    near(ours.hidden(ids()), states(theirs, ids()))
    directory.save(ours, tmp_path / "again")
    again = transformers.AutoModel.from_pretrained(tmp_path / "again", add_pooling_layer=False)
    near(states(again, ids()), states(theirs, ids()))


def test_a_head_that_is_not_whole_is_named(tmp_path):
    make("bert").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["cls.predictions.transform.dense.bias"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestError, match="missing: cls.predictions.transform.dense.bias"):
        directory.load(tmp_path)


def change(path, **keys) -> None:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


PLAIN = {"model_type": "bert", "architectures": ["BertModel"], **SIZES}


@pytest.mark.parametrize("changed, said", [
    ({"architectures": ["BertForTagging"]}, "BertForTagging.* is not supported; supported: BertModel"),
    ({"architectures": "BertModel"}, "architectures"),
    ({"architectures": [["BertModel"]]}, "architectures"),
    ({"is_decoder": True}, "is_decoder = True"),
    ({"add_cross_attention": True}, "add_cross_attention"),
    ({"position_embedding_type": "relative_key"}, "relative_key"),
    ({"hidden_act": "mish"}, "hidden_act"),
    ({"num_attention_heads": 5}, "not a multiple"),
    ({"type_vocab_size": 0}, "type_vocab_size = 0"),
    ({"hidden_size": None}, "hidden_size is missing"),
    ({"hidden_dropout_prob": 2}, "dropout is 2"),
    ({"model_type": "roberta", "architectures": ["RobertaModel"], "max_position_embeddings": 2}, "leaves no position"),
    ({"model_type": "roberta"}, "BertModel.* is not supported; supported: RobertaModel"),
])
def test_a_configuration_that_is_not_ours_is_one_clear_line(changed, said):
    with pytest.raises(RequestError, match=said) as caught:
        families.read_config({**PLAIN, **changed})
    assert "\n" not in str(caught.value)
