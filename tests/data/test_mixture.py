"""Shares of the tokens by source."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmwright.data.mixture import Mixture, shares
from llmwright.errors import RequestError

SIZES = {"code": 600, "text": 300, "talk": 100}


def test_shares_by_size_named_and_partly_named():
    assert shares({}, SIZES, "m") == pytest.approx({"code": 0.6, "text": 0.3, "talk": 0.1})
    assert shares({"code": 3, "text": 7}, SIZES, "m") == pytest.approx({"code": 0.3, "text": 0.7, "talk": 0})
    assert shares({"code": 0.2}, SIZES, "m") == pytest.approx({"code": 0.2, "text": 0.6, "talk": 0.2})
    assert shares({"code": 1}, SIZES, "m") == {"code": 1, "text": 0, "talk": 0}
    assert shares({"code": 0}, SIZES, "m") == pytest.approx({"code": 0, "text": 0.75, "talk": 0.25})


def test_a_wrong_share_is_named():
    with pytest.raises(RequestError, match=r"train.mixture.cod: there is no such source .* code, text, talk"):
        shares({"cod": 1}, SIZES, "train.mixture")
    with pytest.raises(RequestError, match="m: all shares are 0"):
        shares(dict.fromkeys(SIZES, 0), SIZES, "m")
    with pytest.raises(RequestError, match="m: shares are numbers from 0 up"):
        shares({"code": -1}, SIZES, "m")


def test_the_order_of_rows_worked_by_hand():
    mixture = Mixture(SIZES, {"code": 0.5, "text": 0.25, "talk": 0.25})
    names = []
    for _ in range(8):
        names.append(mixture.choose(dict.fromkeys(SIZES, 0)))
        mixture.count(names[-1], 10)
    # lacks after each row: (0,0,0) code · (-5,2.5,2.5) text · (0,-5,5) talk · (5,-2.5,-2.5) code · all even again
    assert names == ["code", "text", "talk", "code"] * 2


weights = st.lists(st.floats(0.01, 1), min_size=2, max_size=6)


@given(weights=weights, sizes=st.lists(st.integers(1, 64), min_size=1, max_size=200))
def test_no_source_is_more_than_one_row_ahead_and_two_never_more_than_one_apart(weights, sizes):
    names = [f"s{i}" for i in range(len(weights))]
    wanted = dict(zip(names, weights))
    mixture = Mixture(dict.fromkeys(names, 1), wanted)
    if sum(weights) < 1:
        wanted = {name: w / sum(weights) for name, w in wanted.items()}
    total = sum(wanted.values())
    for size in sizes:
        name = mixture.choose(dict.fromkeys(names, 0))
        mixture.count(name, size)
        excess = [mixture.given[n] - wanted[n] / total * mixture.total for n in names]
        assert max(excess) <= 64 + 1e-6
        assert len(names) > 2 or min(excess) >= -64 - 1e-6


def test_a_stage_starts_its_own_count():
    stages = [SimpleNamespace(start=0.5, mixture={"text": 1.0}), SimpleNamespace(start=0.8, mixture={"talk": 0.5})]
    mixture = Mixture(SIZES, {"code": 1.0}, stages)
    none = dict.fromkeys(SIZES, 0)
    given_names = []
    for progress in (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0):
        mixture.move_to(progress)
        name = mixture.choose(none)
        mixture.count(name, 10)
        given_names.append(name)
    assert given_names[:4] == ["code", "code", "text", "text"]
    assert mixture.total == 30 and sum(mixture.given.values()) == 30  # since 0.8 only
    with pytest.raises(RequestError, match="train.curriculum.0.mixture.x"):
        Mixture(SIZES, {}, [SimpleNamespace(start=0.5, mixture={"x": 1})])


def test_by_size_a_source_that_is_through_waits_for_the_others():
    mixture = Mixture(SIZES, {})
    assert mixture.choose({"code": 1, "text": 0, "talk": 1}) == "text"
