"""Texts to vectors: in order, whatever stands beside them, whatever they hold; and in 8 bits nearly the same."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import model as decoder
from small import tokenizer as bpe

from llmwright import kernels
from llmwright.engine import precision
from llmwright.engine.embed import batches, embed, read
from llmwright.errors import RequestError
from llmwright.families import read_config
from llmwright.model.build import new
from llmwright.model.config import Sentence
from llmwright.progress import Progress
from llmwright.tokens.published import read_bert
from llmwright.tokens.tokenizer import Tokenizer

WORDS = "the cat sat on a mat dog ran to me and you saw it all day long".split()
TEXTS = [" ".join(WORDS[i % 17] for i in range(j, j + n)) for j, n in enumerate([3, 30, 1, 12, 7, 25, 18, 2, 2, 9])]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    file = tmp_path_factory.mktemp("t") / "vocab.txt"
    file.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, ":"]))
    return Tokenizer(*read_bert(file))


def encoder(sentence: Sentence | None = Sentence(), **change):
    shape = dict(model_type="bert", architectures=["BertModel"], vocab_size=40, hidden_size=64, intermediate_size=128,
                 num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32, initializer_range=0.3)
    made = new(read_config(shape | change), seed=3).eval()
    made.config = replace(made.config, sentence=sentence)
    return made


def test_vectors_come_in_the_texts_order_whatever_their_batch(tokenizer):
    model = encoder()
    one_by_one = np.concatenate([embed(model, tokenizer, [text]) for text in TEXTS])
    for batch_tokens in (1, 40, 100, 10_000):
        found = embed(model, tokenizer, TEXTS, batch_tokens=batch_tokens)
        assert found.shape == (10, 64) and found.dtype == np.float32
        np.testing.assert_allclose(found, one_by_one, atol=1e-5)
    np.testing.assert_allclose(embed(model, tokenizer, TEXTS[::-1]), one_by_one[::-1], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(one_by_one, axis=1), 1, atol=1e-5)
    assert abs(one_by_one @ one_by_one.T - np.eye(10)).max() < 0.99  # not all the same


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 600))
def test_every_text_is_in_one_batch_and_batches_hold_their_budget(lengths, budget):
    found = list(batches(lengths, budget))
    assert sorted(i for rows in found for i in rows) == list(range(len(lengths)))
    for rows in found:
        assert len(rows) == 1 or len(rows) * max(lengths[i] for i in rows) <= budget
    longest = [lengths[rows[0]] for rows in found]
    assert longest == sorted(longest, reverse=True)


def test_no_texts_give_no_vectors(tokenizer):
    assert embed(encoder(), tokenizer, []).shape == (0, 64)


def test_several_threads_at_once_get_what_one_alone_gets(tokenizer):
    model, found = encoder(), {}
    alone = embed(model, tokenizer, TEXTS, batch_tokens=60)

    def work(i):
        found[i] = [embed(model, tokenizer, TEXTS, batch_tokens=60) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(np.array_equal(v, alone) for each in found.values() for v in each)


def test_batches_in_several_threads_give_the_same_bits_and_leave_the_threads_as_they_were(tokenizer):
    model = encoder()
    alone = embed(model, tokenizer, TEXTS * 3, batch_tokens=60)
    torch.set_num_threads(3)
    assert np.array_equal(embed(model, tokenizer, TEXTS * 3, batch_tokens=60), alone)
    assert torch.get_num_threads() == 3
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [3]


def test_an_error_in_one_thread_ends_the_work_and_leaves_the_threads_as_they_were(tokenizer):
    model, calls = encoder(), []

    def failing(*_):
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError("not enough memory")

    model.norm.register_forward_pre_hook(failing)
    torch.set_num_threads(2)
    with pytest.raises(MemoryError, match="not enough memory"):
        embed(model, tokenizer, TEXTS * 20, batch_tokens=30)
    assert torch.get_num_threads() == 2 and len(calls) < 50


class Told(Progress):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def test_a_text_that_is_too_long_is_cut_and_told(tokenizer):
    model, told = encoder(Sentence(max_tokens=12)), Told()
    found = embed(model, tokenizer, TEXTS, progress=told)
    assert told.lines == ["4 of 10 texts are longer than the 12 tokens that are read; the rest of them does not count"]
    cut = " ".join(TEXTS[1].split()[:10])  # 12 less [CLS] and [SEP]
    np.testing.assert_allclose(found[1], embed(model, tokenizer, [cut])[0], atol=1e-5)
    assert read(model, tokenizer, TEXTS).cut == [1, 3, 5, 6]
    told.lines.clear()
    embed(model, tokenizer, [TEXTS[1]], max_tokens=32, progress=told)
    assert not told.lines
    assert np.abs(embed(model, tokenizer, [TEXTS[1]], max_tokens=32) - found[1]).max() > 1e-3


def test_prompts_go_before_the_text_and_lower_case_where_the_model_says_so(tokenizer):
    model = encoder(Sentence(prompts=(("ask", "you : "), ("none", "")), prompt="ask"))
    asked = embed(model, tokenizer, ["you : the cat"], prompt="none")
    assert np.array_equal(embed(model, tokenizer, ["the cat"]), asked)
    assert not np.array_equal(embed(model, tokenizer, ["the cat"], prompt="none"), asked)
    with pytest.raises(RequestError, match="prompt 'question' is not one of the model's; it has: ask, none"):
        embed(model, tokenizer, ["the cat"], prompt="question")
    tree = {**tokenizer.tree, "normalizer": {**tokenizer.tree["normalizer"], "lowercase": False}}
    exact = Tokenizer(tree, tokenizer.config)
    assert not np.array_equal(embed(encoder(), exact, ["THE cat"]), embed(encoder(), exact, ["the cat"]))
    lower = encoder(Sentence(lower=True))
    assert np.array_equal(embed(lower, exact, ["THE cat"]), embed(lower, exact, ["the cat"]))


def test_marks_written_by_a_user_stay_text(tokenizer):
    ids = read(encoder(), tokenizer, ["the [SEP] cat"]).ids[0].tolist()
    assert ids[0] == 2 and ids[-1] == 3 and 3 not in ids[1:-1]


@pytest.mark.parametrize("texts, options, said", [
    (["a", " \n"], {}, "text 2 is empty"), (["a", None], {}, "text 2 is NoneType, not a string"),
    (["a"], {"max_tokens": 33}, "max_tokens 33: the model reads at most 32"),
    (["a"], {"max_tokens": 2}, "2 tokens leave no room"), (["a"], {"batch_tokens": 0}, "batch_tokens 0"),
])
def test_what_cannot_be_embedded_is_one_clear_line(tokenizer, texts, options, said):
    with pytest.raises(RequestError, match=said):
        embed(encoder(), tokenizer, texts, **options)


def test_a_decoder_is_refused():
    with pytest.raises(RequestError, match="this model is a decoder .qwen3.; vectors come from an encoder"):
        embed(decoder(), bpe(), ["a"])


# precision


@pytest.mark.parametrize("dtype, least", [("bfloat16", 0.999), ("int8", 0.99)])
def test_lower_precision_gives_nearly_the_same_vectors_and_not_the_same(tokenizer, dtype, least):
    exact = embed(encoder(), tokenizer, TEXTS)
    model = encoder()
    precision.set_precision(model, dtype)
    cosines = (embed(model, tokenizer, TEXTS) * exact).sum(1)
    assert least < cosines.min() and np.abs(cosines - 1).max() > 1e-6


def test_in_eight_bits_a_text_has_the_same_vector_whatever_stands_beside_it(tokenizer):
    model = encoder()
    precision.set_precision(model, "int8")
    alone = np.concatenate([embed(model, tokenizer, [text]) for text in TEXTS])
    np.testing.assert_allclose(embed(model, tokenizer, TEXTS), alone, atol=2e-2)  # attention in bfloat16


def test_choosing_measures_and_leaves_the_model_as_it_is(tokenizer, monkeypatch):
    model = encoder()
    before = {name: p.clone() for name, p in model.named_parameters()}
    assert precision.choose(model, tokenizer, TEXTS) == "float32"  # little to do
    monkeypatch.setattr(precision, "LITTLE", 0)
    found = precision.fastest(model)
    native = kernels.using()["linear_int8"] == "native"
    assert sorted(found) == ["bfloat16", "float32", *["int8"] * native]
    assert precision.choose(model, tokenizer, TEXTS) in found
    assert 0.99 < precision.agreement(model, tokenizer, TEXTS) < 1 - 1e-6
    monkeypatch.setattr(precision, "AGREES", 1.1)  # a model that does not keep its vectors
    assert precision.choose(model, tokenizer, TEXTS) in ("bfloat16", "float32")
    assert model.dtype == torch.float32
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters()) and len(before) > 30


def test_a_precision_that_is_not_one_is_refused():
    with pytest.raises(RequestError, match="dtype 'int4' is not supported: it must be auto, float32, bfloat16 or int8"):
        precision.set_precision(encoder(), "int4")
    with pytest.raises(RequestError, match="this model is a decoder"):
        precision.set_precision(decoder(), "int8")


@pytest.mark.network
def test_minilm_in_eight_bits_keeps_its_vectors(minilm):
    import llmwright as lw

    loaded = lw.load(minilm)
    texts = ["A man is eating food.", "Someone has a meal.", "The stock market fell sharply.", "Shares lost value."] * 2
    assert precision.agreement(loaded.model, loaded.tokenizer, texts) > 0.997
    exact = loaded.embed(texts[:4])
    near = lw.load(minilm, dtype="int8").embed(texts[:4])
    for vectors in (exact, near):
        alike = vectors @ vectors.T
        assert alike[0, 1] > 2 * alike[0, 2] and alike[2, 3] > 2 * alike[1, 3]
    assert np.abs(exact @ exact.T - near @ near.T).max() < 0.02
