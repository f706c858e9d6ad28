"""Each perplexity is what its name says, each token is scored once, and the bytes are those of the scored text."""

import json
import math
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from llmwright import families
from llmwright.checkpoint import directory
from llmwright.data.shards import DataDir, ShardWriter
from llmwright.errors import RequestError, WorkError
from llmwright.evals.perplexity import evaluate_split, evaluate_text, evaluate_texts, figures
from llmwright.model.build import new
from llmwright.tokens.train import train

STDLIB = Path(sysconfig.get_path("stdlib"))
TEXT = (STDLIB / "this.py").read_text() + (STDLIB / "abc.py").read_text()[:2000] + "Größe — 你好 🙂\n"
TOKENIZER = train([TEXT * 3, "Größe — 你好，世界 🙂"], "bpe", 300)
CONTEXT = 32


def make(**change):
    return new(families.read_config({
        "model_type": "llama", "vocab_size": TOKENIZER.vocab_size, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": CONTEXT, "initializer_range": 0.2,
        **change,
    }), seed=1).eval()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    ours = make()
    directory.save(ours, tmp_path_factory.mktemp("m") / "m")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path_factory.getbasetemp() / "m0" / "m")
    return ours, theirs.eval()


@torch.no_grad()
def rolling(theirs, ids: list[int], prefix: int, context: int, stride: int) -> float:
    """The summed negative log-likelihood as lm-eval defines it (`loglikelihood_rolling`: disjoint windows that begin
    with the token before them), and strided as in transformers' documentation on perplexity: plain loops."""
    stream, nats, scored, begin = [prefix, *ids], 0.0, 0, 0
    while scored < len(ids):
        end = min(begin + context, len(ids))
        log_p = theirs(torch.tensor([stream[begin:end]])).logits[0].double().log_softmax(-1)
        for place in range(scored, end):
            nats -= log_p[place - begin, stream[place + 1]].item()
        scored, begin = end, begin + stride
    return nats


@pytest.mark.parametrize("context, stride", [(32, None), (32, 32), (32, 5), (32, 1), (16, 7), (1, 1)])
def test_a_text_costs_what_the_rolling_definition_says(pair, context, stride):
    ours, theirs = pair
    text = TEXT[-600:]
    ids = TOKENIZER.encode(text)
    wanted = rolling(theirs, ids, TOKENIZER.bos_id, context, stride or context)
    r = evaluate_text(ours, TOKENIZER, text, context=context, stride=stride, batch=3)
    assert r["tokens"] == len(ids) and r["bytes"] == len(text.encode()) and r["words"] == len(text.split())
    assert r["loss"] == pytest.approx(wanted / len(ids), rel=1e-5)
    assert r["perplexity_per_token"] == pytest.approx(math.exp(wanted / len(ids)), rel=1e-4)
    assert r["perplexity_per_word"] == pytest.approx(math.exp(wanted / len(text.split())), rel=1e-3)
    assert r["bits_per_byte"] == pytest.approx(wanted / math.log(2) / len(text.encode()), rel=1e-5)
    assert r["perplexity_per_byte"] == pytest.approx(2 ** r["bits_per_byte"])


def test_figures_by_hand():
    # two words of 4 + 1 + 3 bytes, in 4 tokens, each token with probability 1/4: 8 bits over 8 bytes
    r = figures(4 * math.log(4), tokens=4, n_bytes=8, n_words=2)
    assert r["loss"] == pytest.approx(math.log(4))
    assert r["bits_per_byte"] == pytest.approx(1)
    assert r["perplexity_per_token"] == pytest.approx(4)
    assert r["perplexity_per_word"] == pytest.approx(16)
    assert r["perplexity_per_byte"] == pytest.approx(2)


def test_a_model_without_weights_costs_log_v_a_token():
    model = make()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    r = evaluate_text(model, TOKENIZER, TEXT)
    assert r["loss"] == pytest.approx(math.log(TOKENIZER.vocab_size), rel=1e-6)
    assert r["perplexity_per_token"] == pytest.approx(TOKENIZER.vocab_size, rel=1e-5)


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 63, 64, 65, 66, 100])
@pytest.mark.parametrize("stride", [1, 10, 32])
def test_every_token_is_scored_once_whatever_the_length(length, stride):
    t = train(["ab"], "bytes")
    model = make(vocab_size=t.vocab_size)
    assert evaluate_text(model, t, "a" * length, stride=stride)["tokens"] == length


def test_texts_are_documents_of_their_own(pair):
    ours, _ = pair
    parts = [evaluate_text(ours, TOKENIZER, text) for text in (TEXT[:300], TEXT[300:350])]
    both = evaluate_texts(ours, TOKENIZER, [TEXT[:300], TEXT[300:350]])
    for key in ("tokens", "bytes", "words"):
        assert both[key] == sum(p[key] for p in parts)
    nats = sum(p["loss"] * p["tokens"] for p in parts)
    assert both["loss"] * both["tokens"] == pytest.approx(nats, rel=1e-5)


def data_dir(path: Path, documents: list[str]) -> DataDir:
    writer = ShardWriter(path / "test", "source", TOKENIZER.vocab_size, 500)
    for text in documents:
        writer.add(np.array([TOKENIZER.bos_id, *TOKENIZER.encode(text)]), len(text.encode()))
    splits = {"test": {"shards": writer.close()}}
    card = {"vocab_size": TOKENIZER.vocab_size, "bos_id": TOKENIZER.bos_id, "splits": splits}
    (path / "data.json").write_text(json.dumps(card))
    return DataDir.open(path)


DOCUMENTS = [TEXT[:700], "Größe 你好 🙂 " * 40, "x", TEXT[700:900], TEXT[900:2500]]


@torch.no_grad()
def test_a_split_costs_what_its_documents_cost_with_their_ends(pair, tmp_path):
    ours, theirs = pair
    wanted, tokens, end = 0.0, 0, TOKENIZER.bos_id
    for text in DOCUMENTS:
        ids = [*TOKENIZER.encode(text), end]
        tokens += len(ids)
        stream = [end, *ids]
        for begin in range(0, len(ids), CONTEXT):  # pieces of one context, each beginning anew
            piece = stream[begin : begin + CONTEXT + 1]
            log_p = theirs(torch.tensor([piece[:-1]])).logits[0].log_softmax(-1)
            wanted -= log_p.gather(1, torch.tensor(piece[1:])[:, None]).sum().item()
    r = evaluate_split(ours, TOKENIZER, data_dir(tmp_path, DOCUMENTS).split("test"), batch=2)
    assert r["tokens"] == tokens
    assert r["bytes"] == sum(len(text.encode()) for text in DOCUMENTS)
    assert r["words"] == sum(len(text.split()) for text in DOCUMENTS)
    assert r["loss"] * r["tokens"] == pytest.approx(wanted, rel=1e-5)
    assert r["bits_per_byte"] == pytest.approx(wanted / math.log(2) / r["bytes"], rel=1e-5)


def test_the_bytes_of_a_part_are_those_of_its_tokens(pair, tmp_path):
    ours, _ = pair
    dense, light = "你好，世界" * 300, "a b c d " * 300  # far from equal in bytes a token
    split = data_dir(tmp_path, [dense, light]).split("test")
    tokens = len(TOKENIZER.encode(dense)) // 2
    r = evaluate_split(ours, TOKENIZER, split, max_tokens=tokens)
    assert r["tokens"] == tokens
    ids = TOKENIZER.encode(dense)[:tokens]
    assert r["bytes"] == len(TOKENIZER.decode_bytes(ids))
    assert r["words"] is None


def test_a_longer_view_does_not_hurt_a_model_that_uses_it(tmp_path):
    """Strided scoring gives each token more to look at: for text that repeats, a copying model must gain."""
    torch.manual_seed(0)
    t = train(["ab"], "bytes")
    model = make(vocab_size=t.vocab_size).train()
    text = "abcdefghijklmnop" * 40
    ids = torch.tensor([t.encode(text)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        rows = torch.stack([ids[0, s : s + CONTEXT + 1] for s in torch.randint(0, 500, (8,))])
        loss = torch.nn.functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    plain, strided = (evaluate_text(model, t, text, stride=s)["loss"] for s in (None, 8))
    assert strided < plain < math.log(t.vocab_size) / 4
    assert model.training  # as it was before


@pytest.mark.parametrize("options, said", [
    ({"context": 0}, "context 0"), ({"context": 33}, "model's 32"), ({"stride": 0}, "stride 0"),
    ({"context": 8, "stride": 9}, "stride 9"), ({"batch": 0}, "batch 0"), ({"batch": -1}, "batch -1"),
])
def test_a_wrong_request_is_named(options, said):
    with pytest.raises(RequestError, match=said):
        evaluate_text(make(), TOKENIZER, TEXT, **options)


def test_a_model_that_does_not_predict_the_next_token_is_refused():
    encoder = new(families.read_config(dict(
        model_type="bert", vocab_size=TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, architectures=["BertForMaskedLM"])))
    with pytest.raises(RequestError, match="perplexity is a decoder's, .* this model is an encoder"):
        evaluate_text(encoder, TOKENIZER, TEXT)


def test_nothing_to_score_and_a_damaged_model_are_said(tmp_path):
    with pytest.raises(RequestError, match="too short"):
        evaluate_text(make(), TOKENIZER, "")
    model = make()
    with torch.no_grad():
        model.norm.weight[3] = torch.nan
    with pytest.raises(WorkError, match="not finite"):
        evaluate_text(model, TOKENIZER, TEXT)
    other = train(["ab"], "bytes")
    with pytest.raises(RequestError, match="vocabulary"):
        evaluate_split(make(), other, data_dir(tmp_path, DOCUMENTS).split("test"))
