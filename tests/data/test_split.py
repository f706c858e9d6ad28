"""The split: stable, in proportion, and by the conventions that published figures rest on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmwright.data.dedup import digest
from llmwright.data.split import by_hash, by_tail

fractions = st.sampled_from([(0.8, 0.1, 0.1), (0.9, 0.1, 0.0), (0.9, 0.0, 0.1), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)])


def split(texts, shares=(0.8, 0.1, 0.1)):
    return by_hash(np.array([digest(t.encode())[0] for t in texts], np.uint64), shares)


def test_the_split_of_a_text_never_changes():
    # a change of these breaks every frozen split: it needs a new FORMAT
    parts = split([str(i) for i in range(60)])
    assert "".join(map(str, parts)) == "110000012000000000000000000200002000001112010000021000000200"


@given(st.lists(st.text(max_size=5), max_size=30), st.text(max_size=5), st.integers(0, 30))
def test_adding_a_document_moves_no_other(texts, new, at):
    before = split(texts).tolist()
    after = split(texts[:at] + [new] + texts[at:]).tolist()
    assert after[: len(texts[:at])] + after[len(texts[:at]) + 1 :] == before


@given(fractions)
def test_shares_are_as_asked(shares):
    parts = split([str(i) for i in range(20_000)], shares)
    for part, share in enumerate(shares):
        found = (parts == part).mean()
        assert (found == 0) if share == 0 else abs(found - share) < 0.012  # four standard errors at most


@given(st.integers(0, 2**64 - 1), fractions)
def test_a_part_of_no_share_gets_nothing(value, shares):
    assert shares[by_hash(np.array([value], np.uint64), shares)[0]] > 0


@given(st.text(), fractions)
def test_tail_loses_nothing(text, shares):
    parts = by_tail(text, shares)
    assert "".join(parts) == text
    assert all(not part for part, share in zip(parts, shares) if not share)


@pytest.mark.parametrize("n", [1_115_394, 10, 7])
def test_tail_is_cut_where_the_convention_cuts(n):
    text = "".join(chr(97 + i % 26) for i in range(n))
    train, val, test = by_tail(text, (0.9, 0.1, 0.0))
    assert (train, val, test) == (text[: int(n * 0.9)], text[int(n * 0.9) :], "")
