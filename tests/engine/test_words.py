"""Words that a user names become the tokens that they are."""

import pytest
from small import tokenizer

from llmwright.engine.sampler import Sampling
from llmwright.engine.words import resolve, token_id
from llmwright.errors import RequestError


def test_a_bad_word_is_forbidden_alone_and_after_a_space():
    t = tokenizer()
    found = resolve(Sampling(bad_words=["import", (3, 4)]), t).bad_words
    assert found == (tuple(t.encode("import")), tuple(t.encode(" import")), (3, 4))


def test_a_token_is_named_by_its_id_or_its_text():
    t = tokenizer()
    (one,) = t.encode("def")
    assert token_id(t, one) == token_id(t, "def") == one
    assert token_id(t, "<|endoftext|>") == t.eos_id  # written out, a special token is itself
    assert resolve(Sampling(logit_bias={"def": 2.5, 7: -1}), t).logit_bias == ((one, 2.5), (7, -1))


@pytest.mark.parametrize("sampling, said", [
    (dict(logit_bias={"import sys": 1.0}), "'import sys' is 7 tokens, not one: 'i' 'mp'"),
    (dict(logit_bias={"": 1.0}), "'' is no token"), (dict(logit_bias={10**6: 1.0}), "no token 1000000"),
    (dict(bad_words=[[5, -1]]), "no token -1"),
])
def test_what_is_not_one_token_is_named(sampling, said):
    with pytest.raises(RequestError, match=said):
        resolve(Sampling(**sampling), tokenizer())


@pytest.mark.parametrize("sampling, said", [
    (dict(bad_words=[""]), "bad word is empty"), (dict(bad_words=[[]]), "bad word is empty"),
    (dict(logit_bias={1: float("nan")}), "logit_bias nan"), (dict(logit_bias={1: "x"}), "logit_bias x"),
])
def test_what_means_nothing_is_refused(sampling, said):
    with pytest.raises(RequestError, match=said):
        Sampling(**sampling)
