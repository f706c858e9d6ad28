"""Loss and accuracy of targets: by hand, and of what was masked as transformers computes it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llmwright.data.batch import Batch, pair_batch
from llmwright.errors import RequestError, WorkError
from llmwright.evals.targets import evaluate_targets
from llmwright.model.build import new
from llmwright.model.config import Attention, FeedForward, Learned, ModelConfig, Relative
from llmwright.train.objectives import Objective, masked, seq2seq

COMMON = dict(family="test", vocab_size=30, d_model=16, n_layers=1, context=16, attention=Attention(2, 2, 8),
              feed_forward=FeedForward(32), init_std=0.3)


class Fixed:
    """A model that gives these logits, whatever it is asked."""

    device, training = "cpu", False

    def __init__(self, logits):
        self.given = torch.tensor(logits).log()

    def train(self, on=True):
        return self

    eval = train

    def logits(self, hidden):
        return self.given[hidden[:, 0].long()]


def test_by_hand():
    """Probabilities 0.5, 0.25 and 0.125 for the three targets: 2 bits a target in the mean; the first is the likeliest of
    its row, the others are not."""
    model = Fixed([[0.5, 0.3, 0.2], [0.25, 0.7, 0.05], [0.125, 0.4, 0.475]])
    objective = Objective("encoder", lambda model, batch: (torch.arange(4.0)[None, :, None] % 3, batch.targets), 0.3)
    batch = Batch(torch.zeros(1, 4), torch.tensor([[0, 0, 0, -100]]), None, None, 3)
    found = evaluate_targets(model, objective, [batch, batch])
    assert found["loss"] == pytest.approx(2 * math.log(2)) and found["perplexity_per_token"] == pytest.approx(4.0)
    assert found["accuracy"] == pytest.approx(1 / 3) and found["tokens"] == 6


def test_padding_does_not_count_nor_do_batches():
    """Pairs of unequal length scored together as alone; the mean is over targets, not over batches."""
    model = new(ModelConfig(**COMMON, kind="encoder-decoder", n_encoder_layers=1, positions=Relative()), 0)
    sides = [([5, 6, 7, 2], [9, 2]), ([8, 2], [10, 11, 12, 13, 2]), ([4, 2], [3, 2])]
    pairs = [(np.array(s), np.array(t)) for s, t in sides]

    def batches(*groups):
        return [pair_batch([pairs[i][0] for i in g], [pairs[i][1] for i in g], 1, 1) for g in groups]

    together = evaluate_targets(model, seq2seq, batches((0, 1, 2)))
    apart = evaluate_targets(model, seq2seq, batches((0,), (1, 2)))
    assert together["tokens"] == apart["tokens"] == 9 and together["accuracy"] == apart["accuracy"]
    assert together["loss"] == pytest.approx(apart["loss"], rel=1e-5)


def test_masked_places_alone_are_scored_and_the_model_stays_in_its_mode():
    model = new(ModelConfig(**COMMON, kind="encoder", positions=Learned(16), residual_dropout=0.5), 0).train()
    ids, targets = torch.randint(0, 30, (2, 8)), torch.full((2, 8), -100)
    targets[0, 1], targets[1, 5] = 3, 4
    found = evaluate_targets(model, masked, [Batch(ids, targets, torch.arange(8).expand(2, 8), None, 2, 16)])
    assert model.training
    with torch.no_grad():
        want = F.cross_entropy(model.eval()(ids)[[0, 1], [1, 5]], torch.tensor([3, 4])).item()
    assert found["loss"] == pytest.approx(want, rel=1e-5) and found["tokens"] == 2


def test_nothing_to_score_and_a_broken_model_are_said():
    model = new(ModelConfig(**COMMON, kind="encoder", positions=Learned(16)), 0)
    empty = Batch(torch.zeros(1, 4, dtype=torch.long), torch.full((1, 4), -100), torch.arange(4)[None], None, 0, 4)
    with pytest.raises(RequestError, match="nothing to score"):
        evaluate_targets(model, masked, [empty])
    with torch.no_grad():
        model.embed.weight.fill_(float("nan"))
    empty.targets = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(WorkError, match="not finite"):
        evaluate_targets(model, masked, [empty])
