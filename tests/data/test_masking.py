"""What is hidden, and that it is the same again after a resume."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmwright.data.evaluation import evaluation_rows
from llmwright.data.masking import Masking
from llmwright.data.rows import RowLoader
from llmwright.data.shards import ShardWriter, Split
from llmwright.errors import RequestError
from llmwright.tokens.train import train
from llmwright.tokens.whole_words import goes_on

TEXT = "the quick brown fox jumps over the lazy dog; unbelievable counterrevolutionaries met 12345 foxes.\n"


@pytest.fixture(scope="module")
def tokenizer():
    return train([TEXT * 3, "some other words for an alphabet of pieces " * 3], "bpe", 300, mask=True)


@pytest.fixture(scope="module")
def split(tokenizer, tmp_path_factory) -> Split:
    path = tmp_path_factory.mktemp("masking")
    draw, writer = np.random.default_rng(0), ShardWriter(path, "text", tokenizer.vocab_size, 10**6)
    ids = np.array(tokenizer.encode(TEXT))
    for _ in range(120):
        document = np.tile(ids, 8)[draw.integers(40) :][: draw.integers(5, 400)]
        writer.add(np.concatenate([[tokenizer.bos_id], document]).astype(np.uint16), len(document))
    return Split(path, writer.close(), tokenizer.vocab_size, tokenizer.bos_id)


def loader(split, masking, batch=8, context=64, **more) -> RowLoader:
    return RowLoader(split, context, batch, seed=3, collate=masking, **more)


def test_what_is_hidden(split, tokenizer):
    """15 % of the tokens; of them 80 % a mask, 10 % something else, 10 % as they were; the rest of the text unchanged."""
    plain, masked = loader(split, None, 64), loader(split, Masking(tokenizer, 0), 64)
    hidden = shown = other = same = tokens = 0
    for _ in range(40):
        a, b = plain.next_batch(), masked.next_batch()
        at = b.targets >= 0
        assert torch.equal(b.input_ids[~at], a.input_ids[~at]) and torch.equal(b.targets[at], a.input_ids[at])
        assert not torch.isin(b.targets[at], torch.tensor([tokenizer.bos_id, tokenizer.pad_id])).any()
        assert not torch.isin(b.input_ids[at], torch.tensor([tokenizer.bos_id, tokenizer.pad_id])).any()
        assert b.n_targets == int(at.sum()) and b.n_tokens == a.n_tokens
        hidden, tokens = hidden + int(at.sum()), tokens + int((a.input_ids[a.targets >= 0] != tokenizer.bos_id).sum())
        shown += int((b.input_ids[at] == tokenizer.mask_id).sum())
        same += int((b.input_ids[at] == b.targets[at]).sum())
        other += int(((b.input_ids[at] != b.targets[at]) & (b.input_ids[at] != tokenizer.mask_id)).sum())
    assert hidden / tokens == pytest.approx(0.15, abs=0.006)  # whole tokens of short rows
    assert [n / hidden for n in (shown, other, same)] == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


def test_every_token_is_hidden_sooner_or_later(split, tokenizer):
    masking, seen = Masking(tokenizer, 0), []
    first = loader(split, None).next_batch()
    for draw in range(60):
        seen.append(masking.choose(first.input_ids.numpy(), first.targets.numpy() >= 0, first.positions.numpy() == 0, draw))
    share = np.mean(seen, axis=0)[first.targets.numpy() >= 0]
    assert share.min() > 0 and share.max() < 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**40), st.lists(st.integers(0, 40), min_size=3, max_size=3), st.floats(0.05, 0.6))
def test_each_row_has_its_share_and_at_least_one(tokenizer, draw, lengths, share):
    may = np.arange(40) < np.array(lengths)[:, None]
    chosen = Masking(tokenizer, 0, share).choose(np.full((3, 40), 50), may, may & False, draw)
    assert not (chosen & ~may).any()
    for n, length in zip(chosen.sum(1), lengths):
        assert n == max(int(share * length + 0.5), min(length, 1))


def test_whole_words_are_hidden_whole(split, tokenizer):
    masking = Masking(tokenizer, 0, whole_words=True)
    rows, n = loader(split, None, 64), 0
    for draw in range(10):
        batch = rows.next_batch()
        ids, real, begins = batch.input_ids.numpy(), batch.targets.numpy() >= 0, batch.positions.numpy() == 0
        chosen = masking.choose(ids, real, begins, draw)
        inside = goes_on(*masking.words, ids[:, :-1], ids[:, 1:]) & ~begins[:, 1:] & real[:, 1:]
        n += inside.sum()
        assert (chosen[:, 1:][inside] == chosen[:, :-1][inside]).all()
        assert chosen.sum() / real.sum() == pytest.approx(0.15, abs=0.01)
    assert n > 1000  # words of several tokens, each hidden or shown as one


def test_documents_of_one_row_do_not_see_each_other_nor_the_padding(split, tokenizer):
    rows = loader(split, Masking(tokenizer, 0))
    for _ in range(50):
        batch = rows.next_batch()
        if batch.segments is None:
            assert batch.n_tokens == batch.input_ids.numel()  # each row is one piece and full
        else:
            for ids, segments in zip(batch.input_ids, batch.segments):
                for segment in segments.unique():
                    piece = ids[segments == segment]
                    assert (piece[1:] == tokenizer.bos_id).all() or (piece[1:] != tokenizer.bos_id).all()


@pytest.mark.parametrize("whole_words", [False, True])
def test_resume_gives_the_same_masks(split, tokenizer, whole_words):
    masking = Masking(tokenizer, 0, whole_words=whole_words)
    first = loader(split, masking)
    for _ in range(7):
        first.next_batch()
    state, again = first.state(), loader(split, Masking(tokenizer, 0, whole_words=whole_words))
    again.load_state(state)
    drawn = []
    for _ in range(30):  # beyond an epoch
        a, b = first.next_batch(), again.next_batch()
        assert torch.equal(a.input_ids, b.input_ids) and torch.equal(a.targets, b.targets)
        drawn.append(a.targets)
    assert not torch.equal(drawn[0] >= 0, drawn[1] >= 0)


def test_validation_hides_the_same_every_time_and_reads_everything(split, tokenizer):
    masking = Masking(tokenizer, 0)
    one, two = (list(evaluation_rows(split, 64, 8, masking)) for _ in range(2))
    assert all(torch.equal(a.input_ids, b.input_ids) and torch.equal(a.targets, b.targets) for a, b in zip(one, two))
    assert sum(batch.n_tokens for batch in one) == split.n_tokens
    assert sum(batch.n_tokens for batch in evaluation_rows(split, 64, 8, masking, 1000)) == 1000


def test_a_tokenizer_without_a_mask_is_refused():
    with pytest.raises(RequestError, match="masked needs a tokenizer with a mask token, and the data was prepared with one"):
        Masking(train([TEXT * 3], "bytes"), 0)
