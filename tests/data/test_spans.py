"""Spans are taken out so that source and target together are the text, and nothing is padded needlessly."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmwright.data.evaluation import evaluation_rows
from llmwright.data.rows import RowLoader
from llmwright.data.shards import ShardWriter, Split
from llmwright.data.spans import SpanCorruption
from llmwright.errors import RequestError
from llmwright.tokens.train import train

START = 1


@pytest.fixture(scope="module")
def tokenizer():
    return train(["any text"], "bytes", sentinels=100)  # 256 bytes, then the special tokens


@pytest.fixture(scope="module")
def split(tokenizer, tmp_path_factory) -> Split:
    path, draw = tmp_path_factory.mktemp("spans"), np.random.default_rng(0)
    writer = ShardWriter(path, "text", tokenizer.vocab_size, 10**6)
    for _ in range(80):
        document = draw.integers(0, 256, draw.integers(5, 700))
        writer.add(np.concatenate([[tokenizer.bos_id], document]).astype(np.uint16), len(document))
    return Split(path, writer.close(), tokenizer.vocab_size, tokenizer.bos_id)


def together(source, target, sentinels) -> list[int]:
    """The text again: each sentinel of the source replaced by what follows it in the target."""
    spans, name = {}, None
    for i in target[:-1]:
        if i in sentinels:
            name, spans[i] = i, []
        else:
            spans[name].append(i)
    return [j for i in source[:-1] for j in (spans[i] if i in sentinels else [i])]


def test_the_papers_lengths():
    """T5's setting: 512 tokens of input come from 568 of text, and its targets have 114."""
    corruption = SpanCorruption(train(["x"], "bytes", sentinels=100), START)
    assert corruption.row_tokens(512) == 568
    source, target = corruption.corrupt(np.arange(568) % 256, 7)
    assert (len(source), len(target)) == (512, 114)


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 600), st.integers(0, 2**50), st.floats(0.05, 0.6), st.floats(1, 8))
def test_source_and_target_are_the_text(tokenizer, n, draw, share, mean_length):
    corruption = SpanCorruption(tokenizer, START, share, mean_length)
    corruption.sentinels = np.arange(1000, 2000)  # enough for any share
    ids = np.random.default_rng(n).integers(0, 256, n)
    source, target = (part.tolist() for part in corruption.corrupt(ids, draw))
    gone, spans = corruption.sizes(n)
    order = [i for i in source if i >= 1000]
    assert order == [i for i in target if i >= 1000] == list(range(1000, 1000 + spans))  # in turn, each once
    assert together(source, target, set(order)) == ids.tolist()
    assert source[-1] == target[-1] == tokenizer.eos_id
    assert len(source) == n - gone + spans + 1 and len(target) == gone + spans + 1
    assert source[0] not in order and source[-2] in order


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 900), st.floats(0.05, 0.6), st.floats(1, 8))
def test_a_row_is_filled_whatever_the_setting(tokenizer, context, share, mean_length):
    corruption = SpanCorruption(tokenizer, START, share, mean_length)
    corruption.sentinels = np.arange(1000, 3000)
    n = corruption.row_tokens(context)
    assert context - 2 <= len(corruption.corrupt(np.arange(n), 0)[0]) <= context
    usual = SpanCorruption(tokenizer, START)
    usual.sentinels = corruption.sentinels
    assert len(usual.corrupt(np.arange(usual.row_tokens(context)), 0)[0]) == context


def test_rows_lose_no_text_and_pad_almost_nothing(split, tokenizer):
    corruption = SpanCorruption(tokenizer, START)
    batches = list(evaluation_rows(split, 128, 8, corruption))
    texts = []
    for batch in batches:
        assert batch.input_ids[:, 0].eq(START).all() and batch.targets.max() < tokenizer.vocab_size
        mask = torch.ones_like(batch.source_ids, dtype=torch.bool) if batch.source_mask is None else batch.source_mask
        for source, real, target in zip(batch.source_ids, mask, batch.targets):
            texts += together(source[real].tolist(), target[target >= 0].tolist(), set(tokenizer.sentinel_ids))
    written = [i for name, s in split.sources.items() for k in range(s.n_documents) for i in split.document(name, k)[1:].tolist()]
    assert np.bincount(texts, minlength=256).tolist() == np.bincount(written, minlength=256).tolist()
    real = sum(b.n_tokens for b in batches)
    assert sum(b.source_ids.numel() + b.targets.numel() for b in batches) < 1.03 * real


def test_spans_are_as_long_as_asked_for_and_anywhere(tokenizer):
    corruption = SpanCorruption(tokenizer, START, 0.3, 4.0)
    covered, lengths = np.zeros(200), []
    for draw in range(300):
        source, target = corruption.corrupt(np.arange(200), draw)
        covered[target[target < 200]] += 1
        marks = np.flatnonzero(np.isin(target, tokenizer.sentinel_ids))
        lengths += np.diff(np.append(marks, len(target) - 1)).tolist()
    assert np.mean(lengths) - 1 == pytest.approx(4.0) and max(lengths) > 10 and min(lengths) == 2
    assert covered.sum() == 300 * 60 and covered[30:170].min() > 50  # the first token always stays


def test_resume_takes_the_same_spans(split, tokenizer):
    first = RowLoader(split, 64, 4, seed=1, collate=SpanCorruption(tokenizer, START))
    for _ in range(5):
        first.next_batch()
    again = RowLoader(split, 64, 4, seed=1, collate=SpanCorruption(tokenizer, START))
    again.load_state(first.state())
    for _ in range(10):
        first.resize(64, 4)
        a, b = first.next_batch(), again.next_batch()
        assert torch.equal(a.source_ids, b.source_ids) and torch.equal(a.targets, b.targets)


def test_too_few_sentinels_are_said(split, tokenizer):
    with pytest.raises(RequestError, match="span needs a tokenizer with sentinels"):
        SpanCorruption(train(["x"], "bytes"), START)
    few = SpanCorruption(train(["x"], "bytes", sentinels=5), START)
    with pytest.raises(RequestError, match="rows of 512 tokens take 28 sentinels, and the tokenizer has 5: a shorter"):
        RowLoader(split, 512, 4, seed=1, collate=few)
