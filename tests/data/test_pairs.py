"""Pairs to batches: each pair once an epoch, little padding, exact resume, and what an encoder-decoder is given."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmwright.data import pairs as module
from llmwright.data.pairs import PairLoader, Pairs, evaluation_pairs
from llmwright.data.shards import ShardWriter, Split
from llmwright.errors import RequestError

EOT, PAD, START, END = 0, 1, 2, 3
VOCABULARY = 200_000


def make(path, lengths, shard_tokens=10**6) -> Split:
    """Pair i: a source of `lengths[i][0]` ids and a target of `lengths[i][1]`, all different."""
    writer = ShardWriter(path, "pairs", VOCABULARY, shard_tokens)
    next_id = 10
    for pair in lengths:
        for n in pair:
            ids = np.arange(next_id, next_id + n)
            next_id += n
            writer.add(np.concatenate([[EOT], ids]).astype(np.uint32), n)
    return Split(path, writer.close(), VOCABULARY, EOT)


def pairs(split, context=64) -> Pairs:
    return Pairs(split, context, start_id=START, eos_id=END, pad_id=PAD)


def random_lengths(n=300, seed=0):
    return np.random.default_rng(seed).integers(1, 30, (n, 2)).tolist()


def test_a_batch_by_hand(tmp_path):
    """Texts 10 11 → 12 and 13 → 14 15 16: padding behind, the target shifted right, an end token on every text."""
    batch = pairs(make(tmp_path, [(2, 1), (1, 3)])).batch(np.array([0, 1]))
    assert batch.source_ids.tolist() == [[10, 11, END], [13, END, PAD]]
    assert batch.source_mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.targets.tolist() == [[12, END, -100, -100], [14, 15, 16, END]]
    assert batch.input_ids.tolist() == [[START, 12, END, PAD], [START, 14, 15, 16]]
    assert batch.n_targets == 6 and batch.n_tokens == 11
    assert batch.to("cpu").source_ids.dtype == torch.int64


def test_without_padding_there_is_no_mask(tmp_path):
    assert pairs(make(tmp_path, [(2, 1), (2, 3)])).batch(np.array([0, 1])).source_mask is None


def first_ids(loader, n) -> list[int]:
    """What tells each pair of the next `n` batches apart, in order."""
    return [int(i) for _ in range(n) for i in loader.next_batch().source_ids[:, 0]]


def test_an_epoch_gives_each_pair_once_in_another_order_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WINDOW_PAIRS", 128)  # several windows
    split = make(tmp_path, random_lengths(), shard_tokens=1000)  # several shards, pairs cut between them
    loader = PairLoader(pairs(split), 256, seed=1)
    epochs = [[], []]
    for ids in epochs:
        begin = int(loader.epoch)
        while loader.epoch < begin + 1:
            ids += first_ids(loader, 1)
    wanted = sorted(int(split.document("pairs", 2 * i)[1]) for i in range(300))
    assert sorted(epochs[0]) == sorted(epochs[1]) == wanted and epochs[0] != epochs[1]
    assert first_ids(PairLoader(pairs(split), 256, seed=2), 5) != first_ids(PairLoader(pairs(split), 256, seed=1), 5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=80), st.integers(64, 600))
def test_no_batch_is_beyond_its_budget_and_none_could_take_the_next_pair(tmp_path_factory, lengths, tokens):
    p = pairs(make(tmp_path_factory.mktemp("p"), lengths))
    batches = p.batches(np.arange(len(p)), tokens)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for numbers, following in zip(batches, batches[1:] + [None]):
        longest = p.length[numbers].max()
        assert longest * len(numbers) <= tokens
        if following is not None:
            assert max(longest, p.length[following[0]].max()) * (len(numbers) + 1) > tokens


def test_batches_of_like_length_pad_little(tmp_path):
    loader = PairLoader(pairs(make(tmp_path, random_lengths(2000))), 1024, seed=0)
    padded = real = 0
    while loader.epoch < 1:
        batch = loader.next_batch()
        padded, real = padded + batch.targets.numel(), real + batch.n_targets
    assert padded / real < 1.08


def test_resume_is_exact_at_any_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WINDOW_PAIRS", 100)
    split = make(tmp_path, random_lengths())
    for given_before in (0, 1, 13, 40, 75):
        loader = PairLoader(pairs(split), 256, seed=1)
        first_ids(loader, given_before)
        state, epoch = loader.state(), loader.epoch
        expected = first_ids(loader, 20)
        resumed = PairLoader(pairs(split), 256, seed=1)
        resumed.load_state(state)
        assert resumed.epoch == epoch and first_ids(resumed, 20) == expected


def test_resume_on_other_data_is_refused(tmp_path):
    a, b = make(tmp_path / "a", random_lengths()), make(tmp_path / "b", random_lengths(299))
    state = PairLoader(pairs(a), 256, seed=1).state()
    with pytest.raises(RequestError, match="cannot resume: pairs was 300 when this state was saved and is 299"):
        PairLoader(pairs(b), 256, seed=1).load_state(state)
    with pytest.raises(RequestError, match="batch_tokens was 256"):
        PairLoader(pairs(a), 512, seed=1).load_state(state)


def test_two_ranks_share_the_batches_of_one(tmp_path):
    split = make(tmp_path, random_lengths())
    alone = PairLoader(pairs(split), 256, seed=1)
    two = [PairLoader(pairs(split), 256, seed=1, rank=r, world_size=2) for r in (0, 1)]
    for _ in range(6):
        for rank in two:
            assert first_ids(rank, 1) == first_ids(alone, 1)
    assert two[0].state() == two[1].state() == alone.state()


def test_pairs_beyond_the_context_are_left_out_and_counted(tmp_path):
    split = make(tmp_path, [(5, 5), (9, 3), (3, 20), (9, 9)])
    p = pairs(split, context=10)  # with its end token a text of 9 takes 10
    assert len(p) == 3 and p.left_out == 1 and p.total == 4
    with pytest.raises(RequestError, match="none of its 4 pairs fits 4 tokens a side; the shortest takes 6"):
        pairs(split, context=4)
    with pytest.raises(RequestError, match="batch_tokens 8 has no room for one pair of 10 tokens"):
        PairLoader(p, 8, seed=0)


def test_evaluation_scores_every_pair_once_or_always_the_same_ones(tmp_path):
    p = pairs(make(tmp_path, random_lengths()))
    whole = list(evaluation_pairs(p, 256))
    assert sum(b.n_targets for b in whole) == int(p.length[:, 1].sum())
    some = [[b.source_ids.tolist() for b in evaluation_pairs(p, 256, 1000)] for _ in range(2)]
    assert some[0] == some[1]
    assert sum(b.n_targets for b in evaluation_pairs(p, 256, 1000)) == pytest.approx(1000, rel=0.2)
