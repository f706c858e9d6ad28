"""Masks are filled as transformers' pipeline fills them."""

import json

import pytest
import transformers
from small import model as decoder
from small import tokenizer as bpe

import llmwright as lw
from llmwright.checkpoint import directory
from llmwright.cli import run
from llmwright.engine.fill_mask import fill_mask
from llmwright.errors import RequestError
from llmwright.families import read_config
from llmwright.model.build import new
from llmwright.tokens.published import read_bert
from llmwright.tokens.tokenizer import Tokenizer

WORDS = "the cat sat on a mat dog ran to me and you saw it all day long ##s ##ing".split()
SHAPE = dict(vocab_size=40, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=32, initializer_range=0.5)


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    """The vocabulary has 24 tokens, the model's table 40 rows."""
    path = tmp_path_factory.mktemp("bert")
    (path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    tokenizer = Tokenizer(*read_bert(path / "vocab.txt"))
    model = new(read_config(dict(SHAPE, model_type="bert", architectures=["BertForMaskedLM"])), seed=2).eval()
    directory.save(model, path / "m", tokenizer=tokenizer)
    return str(path / "m")


def pipeline(path: str, text: str, top: int):
    theirs = transformers.BertForMaskedLM.from_pretrained(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    return transformers.FillMaskPipeline(model=theirs, tokenizer=tokenizer)(text, top_k=top)


def test_one_mask_has_the_tokens_and_probabilities_of_transformers(bert):
    found = lw.load(bert).fill("the [MASK] sat on me", top=4)
    wanted = pipeline(bert, "the [MASK] sat on me", 40)
    assert len(found) == 1
    wanted = [w for w in wanted if w["token"] < 24][:4]  # rows without a token are never chosen
    assert [f.id for f in found[0]] == [w["token"] for w in wanted]
    assert [f.probability for f in found[0]] == pytest.approx([w["score"] for w in wanted], abs=1e-5)
    assert [f.token for f in found[0]] == [WORDS[f.id - 5].removeprefix("##") if f.id > 4 else "" for f in found[0]]


def test_several_masks_are_filled_each_for_itself(bert):
    loaded = lw.load(bert)
    found = loaded.fill("the [MASK] sat on [MASK] day", top=3)
    wanted = pipeline(bert, "the [MASK] sat on [MASK] day", 24)
    assert len(found) == 2
    for mine, other in zip(found, wanted):
        other = [w for w in other if w["token"] < 24]
        assert [f.id for f in mine] == [w["token"] for w in other[:3]]
    best = [mask[0].id for mask in found]
    assert found[0][0].text == found[1][0].text == loaded.tokenizer.decode([5, best[0], 7, 8, best[1], 20]).strip()


def test_the_usual_ways_to_write_a_mask_are_all_understood(bert):
    loaded = lw.load(bert)
    assert loaded.fill("a <mask> ran") == loaded.fill("a [MASK] ran") == loaded.fill("a <|mask|> ran")


def test_roberta_reads_from_its_first_position(tmp_path):
    config = dict(SHAPE, model_type="roberta", architectures=["RobertaForMaskedLM"], vocab_size=with_mask().vocab_size,
                  max_position_embeddings=34, type_vocab_size=1)
    tokenizer = with_mask()
    model = new(read_config(config), seed=4).eval()
    directory.save(model, tmp_path / "m", tokenizer=tokenizer)
    text = "import <|mask|> as os"
    theirs = transformers.RobertaForMaskedLM.from_pretrained(tmp_path / "m")
    fast = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "m")
    wanted = transformers.FillMaskPipeline(model=theirs, tokenizer=fast)(text, top_k=3)
    found = fill_mask(model, tokenizer, text, top=3)
    assert [f.id for f in found[0]] == [w["token"] for w in wanted]
    assert [f.probability for f in found[0]] == pytest.approx([w["score"] for w in wanted], abs=1e-5)


def test_a_token_of_white_space_alone_is_seen():
    tokenizer = with_mask()
    config = dict(SHAPE, model_type="roberta", architectures=["RobertaForMaskedLM"], vocab_size=tokenizer.vocab_size,
                  max_position_embeddings=34, type_vocab_size=1)
    found = {f.id: f for f in fill_mask(new(read_config(config)).eval(), tokenizer, "import <|mask|>", top=258)[0]}
    (newline,), (letter,) = tokenizer.encode("\n"), tokenizer.encode("a")
    assert (found[newline].token, found[newline].shown) == ("\n", r"'\n'") and found[letter].shown == "a"


def with_mask():
    from llmwright.tokens.train import train

    return train(["import os as it is\n" * 50], "bpe", 258, mask=True)


@pytest.mark.parametrize("text, top, said", [
    ("no gap here", 5, r"there is no mask to fill in: write \[MASK\] where"), ("[MASK]", 0, "top 0"),
    ("[MASK] " + "cat " * 31, 5, "the text has 34 tokens with its marks, and the model reads at most 32"),
])
def test_what_cannot_be_filled_is_one_clear_line(bert, text, top, said):
    with pytest.raises(RequestError, match=said):
        lw.load(bert).fill(text, top=top)


def test_models_that_fill_no_masks_say_what_they_are(bert):
    headless = new(read_config(dict(SHAPE, model_type="bert", architectures=["BertModel"]))).eval()
    with pytest.raises(RequestError, match="an encoder without a head for it .bert.; masks are filled by"):
        fill_mask(headless, lw.load(bert).tokenizer, "[MASK]")
    with pytest.raises(RequestError, match="a decoder .qwen3."):
        fill_mask(decoder(), bpe(), "[MASK]")
    with pytest.raises(RequestError, match="the tokenizer has no mask token"):
        fill_mask(lw.load(bert).model, bpe(), "[MASK]")


# the command


def test_generate_fills_the_masks_of_an_encoder(bert, capsys):
    assert run(["generate", bert, "the [MASK] sat"]) == 0
    out, err = capsys.readouterr()
    found = lw.load(bert).fill("the [MASK] sat")[0]
    assert len(out.splitlines()) == 5 and err == ""
    best = found[0]
    wanted = [f"{100 * best.probability:.1f}", "%", *best.token.split(), *best.text.split()]
    assert out.splitlines()[0].split() == wanted


def test_generate_tells_a_machine_all_of_it(bert, capsys):
    assert run(["generate", bert, "a [MASK] ran to [MASK]", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [len(mask) for mask in answer["masks"]] == [5, 5]
    assert set(answer["masks"][0][0]) == {"id", "token", "probability", "text"}


def test_options_for_writing_are_refused(bert, capsys):
    assert run(["generate", bert, "the [MASK] sat", "--temperature", "0.5", "--top-k", "3"]) == 2
    err = capsys.readouterr().err
    assert "an encoder fills masks; leave out --temperature, --top-k" in err and err.count("\n") == 1
