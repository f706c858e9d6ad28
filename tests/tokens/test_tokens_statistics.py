"""The figures shown of a tokenizer, against cases worked by hand."""

import json

import pytest

from llmwright.tokens.statistics import statistics, visible
from llmwright.tokens.train import train


def test_bytes_worked_by_hand():
    found = statistics(train([], "bytes"), ["aé", "a\n"])
    assert (found["tokens"], found["bytes"], found["characters"]) == (5, 5, 4)
    assert found["bytes_per_token"] == 1 and found["characters_per_token"] == pytest.approx(4 / 5)
    assert found["frequent"][0] == {"id": 97, "text": "a", "count": 2}
    assert found["used_share"] == pytest.approx(4 / 256)  # a, two bytes of é, newline
    assert found["lengths"] == {1: 256}
    assert found["specials"] == {"<|endoftext|>": 256, "<|pad|>": 257}


def test_chars_worked_by_hand():
    found = statistics(train(["abca"], "chars"), ["abx€"])
    assert (found["vocab_size"], found["tokens"], found["bytes"], found["unknown"]) == (6, 4, 6, 2)
    assert found["used_share"] == pytest.approx(2 / 3)


def test_longest_tokens_come_first_and_lengths_add_up(trained):
    for tokenizer in trained.values():
        found = statistics(tokenizer)
        lengths = [token["bytes"] for token in found["longest"]]
        assert lengths == sorted(lengths, reverse=True) and lengths[0] == max(found["lengths"])
        assert sum(found["lengths"].values()) == tokenizer.vocab_size - len(tokenizer.special_tokens)
        assert json.loads(json.dumps(found))["fingerprint"] == tokenizer.fingerprint
        assert "tokens" not in found


def test_tokens_are_shown_on_one_line():
    tokenizer = train([], "bytes")
    assert [visible(tokenizer, i) for i in (10, 32, 65, 0xE2)] == ["\\n", " ", "A", "\\xe2"]


def test_nothing_to_measure_is_no_division_by_zero(trained):
    found = statistics(trained["bpe"], [""])
    assert found["tokens"] == 0 and found["bytes_per_token"] is None
