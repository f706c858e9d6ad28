"""From shards to batches: nothing lost, everything resumes."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from data_case import EOT, all_pairs, batch_pairs, make_split, same
from hypothesis import given, settings
from hypothesis import strategies as st

from llmwright.data import streams
from llmwright.data.rows import RowLoader, evaluation_batches, evaluation_bytes
from llmwright.errors import RequestError

few = settings(deadline=None, max_examples=40)
lengths = st.lists(st.integers(1, 40), min_size=1, max_size=25)
contexts = st.integers(1, 17)


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(streams, "WINDOW_DOCUMENTS", 5)
    monkeypatch.setattr(streams, "WINDOW_TOKENS", 90)


def temporary_split(factory, sizes, shard_tokens=50):
    return make_split(factory.mktemp("data"), sizes, shard_tokens)


def check_rows(batch, context):
    """Every row by itself: pieces whose positions count from 0, whose targets are the next inputs, then padding."""
    assert batch.input_ids.shape == batch.targets.shape == batch.positions.shape == (len(batch.input_ids), context)
    several = False
    for row in range(len(batch.input_ids)):
        ids, targets, positions = (x[row].tolist() for x in (batch.input_ids, batch.targets, batch.positions))
        segments = [0] * context if batch.segments is None else batch.segments[row].tolist()
        valid = [t >= 0 for t in targets]
        fill = sum(valid)
        assert valid == [True] * fill + [False] * (context - fill) and fill > 0
        for i in range(1, context):
            if i == fill:  # padding is eot inputs from position 0 on, in a segment of its own
                assert set(ids[i:]) == {EOT} and positions[i:] == list(range(context - i))
                assert batch.segments is None or segments[i] == segments[i - 1] + 1
            elif batch.segments is None or segments[i] == segments[i - 1]:
                assert positions[i] == positions[i - 1] + 1
                assert i > fill or ids[i] == targets[i - 1]
            else:
                assert segments[i] == segments[i - 1] + 1 and positions[i] == 0
                several = True
        assert positions[0] == segments[0] == 0
    assert several == (batch.segments is not None)
    assert batch.input_ids.dtype == batch.targets.dtype == batch.positions.dtype == torch.int64
    assert batch.segments is None or batch.segments.dtype == torch.int32


@few
@given(sizes=lengths, more=lengths, context=contexts, shard_tokens=st.integers(1, 200))
def test_each_epoch_trains_on_every_token_exactly_once(tmp_path_factory, sizes, more, context, shard_tokens):
    split = temporary_split(tmp_path_factory, {"a": sizes, "b": more}, shard_tokens)
    context = min(context, split.n_tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "WINDOW_DOCUMENTS", 5)
        patch.setattr(streams, "WINDOW_TOKENS", 90)
        loader, orders = RowLoader(split, context, 1, seed=4), []
        for epoch in (1, 2, 3):
            seen, order = Counter(), []
            while loader.epoch < epoch:
                batch = loader.next_batch()
                check_rows(batch, context)
                seen += batch_pairs(batch)
                order.append(batch.input_ids.tolist())
            assert seen == all_pairs(split)
            assert loader.epoch == epoch
            orders.append(order)
    if split.n_documents > 12:
        assert orders[0] != orders[1] != orders[2]


def test_documents_are_cut_at_the_context_first_and_elsewhere_later(tmp_path):
    split = make_split(tmp_path, {"a": [1000]})
    loader = RowLoader(split, 100, 1, seed=0)
    starts = []
    for epoch in range(3):
        rows = []
        while loader.epoch < epoch + 1:
            rows.append(int(loader.next_batch().input_ids[0, 0]))
        starts.append(sorted(rows))
    assert starts[0] == list(range(0, 1000, 100))
    assert starts[1] != starts[0] != starts[2] != starts[1]


def test_documents_come_in_another_order_each_epoch(tmp_path, small_windows):
    split = make_split(tmp_path, {"a": [8] * 40})
    loader = RowLoader(split, 8, 40, seed=0)
    windows = []  # the five documents (by their first text token) that are read first
    for _ in range(3):
        ids = loader.next_batch().input_ids[:, 1].tolist()
        assert len(set(ids)) == 40
        windows.append(set(ids[:5]))
    assert windows[0] != windows[1] != windows[2] != windows[0]


class Training:
    """A loader and the settings that change while it is used: batch i comes at progress i / 40."""

    def __init__(self, split, growth, **how):
        self.loader, self.growth, self.step = RowLoader(split, **how), growth, 0

    def next(self):
        if self.step in self.growth:
            self.loader.resize(*self.growth[self.step])
        self.step += 1
        return self.loader.next_batch((self.step - 1) / 40)


@few
@given(
    sizes=lengths, more=lengths, rows=st.sampled_from(["packed", "window"]), stride=st.sampled_from([None, 1, 5]),
    mixture=st.sampled_from([{}, {"a": 0.3}, {"a": 1, "b": 2}]), at=st.integers(0, 39), seed=st.integers(0, 9),
    growth=st.dictionaries(st.integers(0, 39), st.tuples(st.integers(1, 12), st.integers(1, 4)), max_size=4),
)
def test_resume_at_any_batch_gives_the_same_batches(
    tmp_path_factory, sizes, more, rows, stride, mixture, at, seed, growth
):
    sizes, more = [12, *sizes], [12, *more]
    split = temporary_split(tmp_path_factory, {"a": sizes, "b": more})
    how = dict(context=8, batch=3, seed=seed, rows=rows, stride=stride, mixture=mixture,
               curriculum=[SimpleNamespace(start=0.5, mixture={"b": 0.9})])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "WINDOW_DOCUMENTS", 5)
        whole = Training(split, growth, **how)
        for _ in range(at):
            whole.next()
        state = json.loads(json.dumps(whole.loader.state()))
        resumed = Training(split, growth, **how)
        resumed.loader.load_state(state)
        resumed.step = at
        for _ in range(15):
            assert same(whole.next(), resumed.next())
        assert whole.loader.state() == resumed.loader.state() and whole.loader.epoch == resumed.loader.epoch


@few
@given(sizes=lengths, changes=st.lists(st.tuples(contexts, st.integers(1, 4)), min_size=1, max_size=4),
       windows=st.sampled_from([3, 1000]))
def test_growing_rows_lose_and_repeat_nothing(tmp_path_factory, sizes, changes, windows):
    split = temporary_split(tmp_path_factory, {"a": [17, *sizes]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "WINDOW_DOCUMENTS", windows)
        for epochs in (1, 2):  # the second begins with documents cut at random
            loader, seen = RowLoader(split, changes[0][0], 1, seed=1), Counter()
            while loader.epoch < epochs - 1:
                loader.next_batch()
            for context, n in changes:
                loader.resize(context, 1)
                for _ in range(n):
                    if loader.epoch < epochs:
                        batch = loader.next_batch()
                        check_rows(batch, context)
                        seen += batch_pairs(batch)
            while loader.epoch < epochs:
                seen += batch_pairs(loader.next_batch())
            assert seen == all_pairs(split)


@pytest.mark.parametrize("rows", ["packed", "window"])
def test_ranks_take_disjoint_rows_that_together_are_the_plan(tmp_path, small_windows, rows):
    split = make_split(tmp_path, {"a": [30, 2, 17, 9] * 5, "b": [5, 40] * 4}, 100)
    how = dict(context=16, seed=2, rows=rows, mixture={"a": 0.4})
    alone = RowLoader(split, batch=6, **how)
    ranks = [RowLoader(split, batch=2, rank=rank, world_size=3, **how) for rank in range(3)]
    for _ in range(12):
        whole = alone.next_batch(0.5)
        parts = [loader.next_batch(0.5) for loader in ranks]
        for rank, part in enumerate(parts):
            assert torch.equal(part.input_ids, whole.input_ids[rank::3])
            assert torch.equal(part.targets, whole.targets[rank::3])
        assert sum(part.n_targets for part in parts) == whole.n_targets
    assert ranks[0].state() == ranks[2].state()
    alone.load_state({**ranks[1].state(), "batch": 6})  # and another number of ranks can go on
    assert torch.equal(alone.next_batch(0.5).input_ids[1::3], ranks[1].next_batch(0.5).input_ids)


def test_shares_of_the_tokens_hold_within_one_row_in_every_stage(tmp_path, small_windows):
    split = make_split(tmp_path, {"a": [30, 2, 17, 9] * 9, "b": [5, 40, 3] * 9})
    first_of_b = int(split.document("b", 0)[1])
    loader = RowLoader(split, 16, 1, seed=0, mixture={"a": 0.7, "b": 0.3},
                       curriculum=[SimpleNamespace(start=0.5, mixture={"a": 0.1})])
    for progress, share in ((0.2, 0.3), (0.6, 0.9)):
        from_b = total = 0
        for _ in range(80):
            batch = loader.next_batch(progress)
            total += batch.n_targets
            # a row is of one source; ids tell which (a row of empty documents cannot occur here)
            from_b += batch.n_targets * (int(batch.input_ids.max()) >= first_of_b)
            assert abs(from_b - share * total) <= 16


def test_a_source_without_a_share_is_not_read(tmp_path):
    split = make_split(tmp_path, {"a": [9] * 9, "b": [9] * 9})
    loader = RowLoader(split, 8, 1, seed=0, mixture={"b": 1.0})
    first_of_b = int(split.document("b", 0)[1])
    for _ in range(20):
        ids = loader.next_batch().input_ids
        assert int(ids[ids > 0].min()) >= first_of_b


def test_window_mode_worked_by_hand(tmp_path):
    # the text: 0 1 2 3 | 0 4 5 | 0 6 7 8, then the eot that ends it
    split = make_split(tmp_path, {"a": [4, 3, 4]}, shard_tokens=5)
    expected = {
        None: {((0, 1, 2, 3), (1, 2, 3, 0)), ((0, 4, 5, 0), (4, 5, 0, 6))},  # rows at 0 and 4; three tokens left out
        3: {((0, 1, 2, 3), (1, 2, 3, 0)), ((3, 0, 4, 5), (0, 4, 5, 0)), ((5, 0, 6, 7), (0, 6, 7, 8))},
    }
    for stride, rows in expected.items():
        loader = RowLoader(split, 4, len(rows), seed=0, rows="window", stride=stride)
        batch = loader.next_batch()
        assert set(zip(map(tuple, batch.input_ids.tolist()), map(tuple, batch.targets.tolist()))) == rows
        assert batch.positions.tolist() == [[0, 1, 2, 3]] * len(rows) and batch.segments is None
        assert batch.n_targets == 4 * len(rows)
    last = RowLoader(split, 11, 1, seed=0, rows="window").next_batch()
    assert last.targets.tolist() == [[1, 2, 3, 0, 4, 5, 0, 6, 7, 8, 0]]  # the end of the last document is a target


def test_window_mode_moves_its_rows_after_the_first_epoch(tmp_path):
    split = make_split(tmp_path, {"a": [1005]})
    loader, epochs = RowLoader(split, 10, 1, seed=1, rows="window"), []
    for _ in range(3):
        rows = []
        stream = loader.streams["a"]
        epoch = stream.epoch
        while stream.epoch == epoch:
            rows.append(int(loader.next_batch().input_ids[0, 0]))
        assert rows != sorted(rows) and len(rows) == len(set(rows)) and len({r % 10 for r in rows}) == 1
        epochs.append(sorted(rows))
    assert epochs[0] == list(range(0, 1000, 10)) and epochs[1] != epochs[0] != epochs[2] != epochs[1]


def test_the_seed_decides_the_order(tmp_path):
    split = make_split(tmp_path, {"a": list(range(2, 60))})
    one, again, other = (RowLoader(split, 16, 8, seed=seed).next_batch() for seed in (1, 1, 2))
    assert same(one, again) and not same(one, other)


def test_a_split_smaller_than_a_row_and_other_mistakes_are_named(tmp_path):
    split = make_split(tmp_path, {"a": [5, 6], "b": [4, 30]})
    with pytest.raises(RequestError, match=r"45 training tokens, fewer than one row of 64.*train.context=45 or less"):
        RowLoader(split, 64, 1, seed=0)
    with pytest.raises(RequestError, match=r"a: 11 training tokens, fewer than one row of 12"):
        RowLoader(split, 12, 1, seed=0, rows="window")
    with pytest.raises(RequestError, match=r"45 training tokens, fewer than one row of 46"):
        RowLoader(split, 16, 1, seed=0).resize(46, 1)
    with pytest.raises(RequestError, match=r"train.mixture.c: there is no such source"):
        RowLoader(split, 8, 1, seed=0, mixture={"c": 1.0})
    with pytest.raises(RequestError, match="train.rows: packd is not allowed"):
        RowLoader(split, 8, 1, seed=0, rows="packd")


def test_a_state_of_other_data_is_refused(tmp_path):
    split, other = make_split(tmp_path / "1", {"a": [50]}), make_split(tmp_path / "2", {"a": [51]})
    state = RowLoader(split, 8, 1, seed=0).state()
    with pytest.raises(RequestError, match="cannot resume: sources was"):
        RowLoader(other, 8, 1, seed=0).load_state(state)
    with pytest.raises(RequestError, match="cannot resume: seed was 0 when this state was saved and is 1"):
        RowLoader(split, 8, 1, seed=1).load_state(state)


@few
@given(sizes=lengths, more=lengths, context=contexts, batch=st.integers(1, 5))
def test_evaluation_scores_every_token_once_in_order(tmp_path_factory, sizes, more, context, batch):
    split = temporary_split(tmp_path_factory, {"a": sizes, "b": more})
    seen, firsts = Counter(), []
    for rows in evaluation_batches(split, context, batch):
        check_rows(rows, context)
        assert len(rows.input_ids) <= batch
        seen += batch_pairs(rows)
        firsts += rows.targets[:, 0].tolist()
    assert seen == all_pairs(split) and evaluation_bytes(split) == split.n_bytes
    firsts = [first for first in firsts if first]  # a 0 is an end: it does not tell where
    assert firsts == sorted(firsts)


@few
@given(sizes=lengths, context=contexts, data=st.data())
def test_strided_evaluation_scores_once_with_enough_context(tmp_path_factory, sizes, context, data):
    stride = data.draw(st.integers(1, context))
    split = temporary_split(tmp_path_factory, {"a": sizes})
    position_of = {}  # of each token in its document
    for i in range(split.n_documents):
        position_of |= {token: at for at, token in enumerate(split.document("a", i).tolist()) if token}
    seen = Counter()
    for rows in evaluation_batches(split, context, 3, stride=stride):
        seen += batch_pairs(rows)
        for token, position, target in zip(*(x.flatten().tolist() for x in
                                             (rows.input_ids, rows.positions, rows.targets))):
            if target >= 0 and token:
                assert position >= min(position_of[token], context - stride)
    assert seen == all_pairs(split)


def test_strided_evaluation_worked_by_hand(tmp_path):
    split = make_split(tmp_path, {"a": [7]})
    (rows,) = evaluation_batches(split, 4, 8, stride=2)
    assert rows.input_ids.tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 0]]
    assert rows.targets.tolist() == [[1, 2, 3, 4], [-100, -100, 5, 6], [-100, -100, 0, -100]]
    assert rows.n_targets == 7
    with pytest.raises(RequestError, match="stride 5 is not allowed: 1 to the context, 4"):
        next(evaluation_batches(split, 4, 8, stride=5))


def test_a_part_of_the_split_is_exact_even_and_the_same_for_every_context(tmp_path):
    split = make_split(tmp_path, {"a": [3000] * 40, "b": [500] * 40})
    parts = []
    for context, stride in ((64, None), (100, None), (100, 30)):
        seen = Counter()
        for rows in evaluation_batches(split, context, 8, max_tokens=20_000, stride=stride):
            seen += batch_pairs(rows)
        parts.append(seen)
    assert parts[0] == parts[1] == parts[2]
    assert sum(parts[0].values()) == 20_000 and max(parts[0].values()) == 1  # no id but its own: none twice
    first_of_b = int(split.document("b", 0)[1])
    from_b = sum(n for (token, target), n in parts[0].items() if max(token, target) >= first_of_b)
    assert from_b == pytest.approx(20_000 / 7, abs=1024)
    # 3 bytes a text token and none for the end
    assert evaluation_bytes(split, 20_000) == pytest.approx(3 * 20_000, rel=0.01)
    everything = sum(rows.n_targets for rows in evaluation_batches(split, 64, 8, max_tokens=10**9))
    assert everything == split.n_tokens


@few
@given(sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=12), data=st.data())
def test_any_part_has_exactly_the_size_asked_for(tmp_path_factory, sizes, data):
    split = temporary_split(tmp_path_factory, {"a": sizes}, 10**6)
    wanted = data.draw(st.integers(1, split.n_tokens))
    seen = Counter()
    for rows in evaluation_batches(split, 128, 8, max_tokens=wanted):
        seen += batch_pairs(rows)
    assert sum(seen.values()) == wanted and not seen - all_pairs(split)
