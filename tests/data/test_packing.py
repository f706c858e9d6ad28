"""Cutting, joining, packing and ordering."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llmwright.data.order import key, permuted
from llmwright.data.packing import after, best_fit, cut, documents, join, pack, shuffled


def spans_of(lengths):
    lengths = np.array(lengths, np.int64)
    return documents(np.cumsum(lengths) - lengths, lengths)


def as_pairs(spans):
    return list(zip(spans.start.tolist(), spans.length.tolist()))


@given(n=st.integers(1, 3000), seed=st.integers(0, 2**31), at=st.data())
def test_the_order_is_a_permutation_and_any_part_of_it_can_be_asked_for(n, seed, at):
    whole = permuted(np.arange(n), n, key(seed))
    assert sorted(whole.tolist()) == list(range(n))
    part = np.array(at.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20)))
    assert (permuted(part, n, key(seed)) == whole[part]).all()


def test_every_place_is_about_equally_likely():
    n, tries = 10, 3000
    places = np.zeros((n, n))
    for seed in range(tries):
        places[np.arange(n), permuted(np.arange(n), n, key(7, seed))] += 1
    # 300 expected, standard deviation 16.4: five of them
    assert np.abs(places - tries / n).max() < 5 * 16.4


def test_the_order_never_changes_between_versions():
    # recorded once: a run saved today must go on in the same order after any upgrade
    assert permuted(np.arange(10), 10, key(1, 2)).tolist() == [3, 4, 9, 1, 6, 5, 8, 0, 7, 2]
    assert permuted(np.arange(3), 10**12, key(5)).tolist() == [928664024578, 458852923603, 636878001745]


def test_keys_differ_by_every_part_and_its_place():
    assert len({key(a, b, c) for a in range(8) for b in range(8) for c in range(8)}) == 512
    assert key(0) != key(0, 0)


def test_cutting_a_case_worked_by_hand():
    # documents at 0 (7 tokens) and 7 (3 tokens), context 3
    assert as_pairs(cut(spans_of([7, 3]), 3)) == [(0, 3), (3, 3), (6, 1), (7, 3)]
    # the first piece of the long one has 2 tokens; the short one stays whole
    assert as_pairs(cut(spans_of([7, 3]), 3, first=np.array([2, 1]))) == [(0, 2), (2, 3), (5, 2), (7, 3)]


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30), context=st.integers(1, 20), data=st.data()
)
def test_joining_undoes_cutting(lengths, context, data):
    spans = spans_of(lengths)
    first = np.array(data.draw(st.lists(st.integers(1, context), min_size=len(lengths), max_size=len(lengths))))
    for lead in (None, first):
        pieces = cut(spans, context, lead)
        assert pieces.length.min() >= 1 and pieces.length.max() <= context and pieces.length.sum() == sum(lengths)
        shuffled_pieces = pieces[np.random.default_rng(0).permutation(len(pieces))]
        assert as_pairs(join(shuffled_pieces)) == as_pairs(spans)


def naive_best_fit_decreasing(lengths, context):
    rows = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row in rows if sum(row) + length <= context]
        if fitting:
            max(fitting, key=sum).append(length)
        else:
            rows.append([length])
    return rows


@given(context=st.integers(1, 50), data=st.data())
def test_packing_is_best_fit_decreasing(context, data):
    lengths = data.draw(st.lists(st.integers(1, context), min_size=1, max_size=80))
    row = best_fit(np.array(lengths), context)
    fills = sorted(np.bincount(row, lengths).tolist())
    assert fills == sorted(sum(r) for r in naive_best_fit_decreasing(lengths, context))
    assert max(fills) <= context and min(fills) > 0


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30), context=st.integers(1, 20), data=st.data())
def test_what_is_left_after_some_rows_is_all_of_the_rest(lengths, context, data):
    rows = shuffled(pack(cut(spans_of(lengths), context), context), key(3))
    n = data.draw(st.integers(0, len(rows)))
    given_tokens = [
        address
        for start, length in as_pairs(rows.pieces[: rows.first[n]])
        for address in range(start, start + length)
    ]
    rest = after(rows, n)
    left_tokens = [address for start, length in as_pairs(rest) for address in range(start, start + length)]
    assert sorted(given_tokens + left_tokens) == list(range(sum(lengths)))
    begins = set((np.cumsum(lengths) - lengths).tolist())
    for start, length in as_pairs(rest):  # joined within a document only
        assert not begins & set(range(start + 1, start + length))
    assert rows.size.tolist() == [
        int(rows.pieces.length[a:b].sum()) for a, b in zip(rows.first[:-1], rows.first[1:])
    ]
