"""What the text so far changes: transformers' processors where it has them, OpenAI's formula where not."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from transformers.generation import logits_process as theirs

from llmwright.engine.penalties import penalize
from llmwright.engine.sampler import Sampling
from llmwright.errors import RequestError

V = 12
TOKENS = st.lists(st.integers(0, V - 1), max_size=8)


def logits(seed: int, rows: int = 1) -> torch.Tensor:
    return 3 * torch.randn(rows, V, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=100, deadline=None)
@given(prompt=TOKENS, written=TOKENS, penalty=st.floats(0.3, 3), seed=st.integers(0, 99))
def test_the_repetition_penalty_is_that_of_transformers(prompt, written, penalty, seed):
    x = logits(seed)
    wanted = theirs.RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([[*prompt, *written]]).long(), x)
    ours = penalize(x, [Sampling(repetition_penalty=penalty)], [prompt], [written])
    torch.testing.assert_close(ours, wanted)


@settings(max_examples=100, deadline=None)
@given(
    prompt=TOKENS, written=TOKENS, seed=st.integers(0, 99),
    words=st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=4), min_size=1, max_size=5),
)
def test_bad_words_are_those_of_transformers(prompt, written, words, seed):
    x = logits(seed)
    wanted = theirs.NoBadWordsLogitsProcessor(words)(torch.tensor([[*prompt, *written]]).long(), x)
    ours = penalize(x, [Sampling(bad_words=words)], [prompt], [written])
    torch.testing.assert_close(ours, wanted)


@settings(max_examples=50, deadline=None)
@given(bias=st.dictionaries(st.integers(0, V - 1), st.floats(-50, 50), min_size=1), seed=st.integers(0, 99))
def test_the_logit_bias_is_that_of_transformers(bias, seed):
    x = logits(seed)
    wanted = theirs.SequenceBiasLogitsProcessor([[[i], value] for i, value in bias.items()])(torch.tensor([[0]]), x)
    torch.testing.assert_close(penalize(x, [Sampling(logit_bias=bias)], [[]], [[]]), wanted)


def test_presence_and_frequency_count_what_was_written_and_not_the_prompt():
    x = torch.zeros(1, V)
    sampling = Sampling(presence_penalty=0.5, frequency_penalty=0.25)
    changed = penalize(x, [sampling], [[7, 7, 1]], [[1, 2, 1, 1]])
    assert changed[0].tolist() == [0, -0.5 - 3 * 0.25, -0.5 - 0.25, *[0] * 9]


def test_no_end_comes_before_min_tokens():
    sampling = Sampling(min_tokens=2)
    for written, allowed in (([], False), ([1], False), ([1, 1], True)):
        changed = penalize(logits(0), [sampling], [[5]], [written], ends={3, 4})
        assert (changed[0, [3, 4]] > -math.inf).tolist() == [allowed, allowed]
        assert (changed[0, [0, 1, 2, 5]] > -math.inf).all()


def test_the_order_is_that_of_the_docstring():
    """bias, repetition, frequency and presence, bad words: worked by hand on one token."""
    x = torch.tensor([[1.0, -1.0, 0.0]])
    sampling = Sampling(logit_bias={0: 3.0}, repetition_penalty=2.0, presence_penalty=0.5, bad_words=[[2]])
    assert penalize(x, [sampling], [[1]], [[0]]).tolist() == [[(1 + 3) / 2 - 0.5, -1 * 2, -math.inf]]


def test_each_row_has_its_own_settings_and_history():
    x = logits(1, rows=4)
    kept = x.clone()
    settings_ = [Sampling(), Sampling(repetition_penalty=2.0), Sampling(bad_words=[[4]]), Sampling(frequency_penalty=1)]
    prompts, written = [[1], [1], [1], [1]], [[2], [2], [2], [2, 2]]
    together = penalize(x, settings_, prompts, written)
    for i in range(4):
        alone = penalize(x[i : i + 1], settings_[i : i + 1], prompts[i : i + 1], written[i : i + 1])
        assert torch.equal(together[i : i + 1], alone)
    assert torch.equal(x, kept)  # the model's own logits stay, for the log-probabilities
    assert penalize(x, [Sampling()] * 4, prompts, written) is x


def test_nothing_left_to_choose_is_one_clear_line():
    with pytest.raises(RequestError, match="leave no token"):
        penalize(logits(0), [Sampling(bad_words=[[i] for i in range(V)])], [[]], [[]])
