"""Each objective's loss is its definition, whatever shares the batch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llmwright.data.batch import Batch, pair_batch
from llmwright.model.build import new
from llmwright.model.config import Attention, Experts, FeedForward, Head, Learned, ModelConfig, Norm, Relative, Rotary
from llmwright.train.objectives import OBJECTIVES, Objective, causal, masked, seq2seq

VOCABULARY = 50
COMMON = dict(vocab_size=VOCABULARY, d_model=32, n_layers=2, context=32, attention=Attention(2, 2, 16),
              feed_forward=FeedForward(64), init_std=0.1)


def make(kind, **changes):
    positions = {"decoder": Rotary(), "encoder": Learned(32), "encoder-decoder": Relative()}[kind]
    return new(ModelConfig(family="test", kind=kind, positions=positions, n_encoder_layers=2, **{**COMMON, **changes}), 1)


def pairs(*sides, pad=1):
    return pair_batch([np.array(s) for s, _ in sides], [np.array(t) for _, t in sides], start_id=pad, pad_id=pad)


THREE = ([5, 6, 7, 8, 2], [9, 10, 2]), ([11, 2], [12, 13, 14, 15, 16, 2]), ([17, 18, 2], [19, 2])


def test_each_objective_says_the_kind_it_trains():
    assert {name: objective.kind for name, objective in OBJECTIVES.items()} == {
        "causal": "decoder", "masked": "encoder", "span": "encoder-decoder", "seq2seq": "encoder-decoder"
    }


def test_seq2seq_is_the_targets_own_loss_whatever_is_padded():
    """-log p of each target token given the source and what was written before it, summed: in a batch as alone."""
    model = make("encoder-decoder")
    together, n, _ = seq2seq(model, pairs(*THREE))
    assert n == 11
    alone = 0.0
    for source, target in THREE:
        logits = model(torch.tensor([source]), torch.tensor([[1, *target[:-1]]]))
        alone += F.cross_entropy(logits[0], torch.tensor(target), reduction="sum")
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("head", [Head(), Head(bias=True), Head(softcap=5.0)])
def test_label_smoothing_is_torchs(head):
    """Through the fused loss and through the plain one."""
    model, batch = make("encoder-decoder", head=head), pairs(*THREE)
    smooth = Objective("encoder-decoder", seq2seq.states, label_smoothing=0.1)
    loss, _, _ = smooth(model, batch)
    logits = model(batch.source_ids, batch.input_ids, batch.source_mask)
    want = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(loss, want, rtol=1e-4, atol=1e-3)
    loss.backward()
    gradient = model.embed.weight.grad.clone()
    model.zero_grad()
    want.backward()
    torch.testing.assert_close(gradient, model.embed.weight.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("head", [Head(), Head(transform="gelu", bias=True)])
def test_masked_counts_the_masked_places_alone_and_reads_both_ways(head):
    model = make("encoder", norm=Norm("layer", bias=True), head=head)
    ids, targets = torch.randint(2, VOCABULARY, (2, 12)), torch.full((2, 12), -100)
    targets[0, 3], targets[0, 4], targets[1, 0] = 7, 8, 9
    batch = Batch(ids, targets, torch.arange(12).expand(2, 12), None, 3, 24)
    loss, n, _ = masked(model, batch)
    log_probs = model(ids).log_softmax(-1)
    want = -(log_probs[0, 3, 7] + log_probs[0, 4, 8] + log_probs[1, 0, 9])
    assert n == 3 and batch.n_tokens == 24
    torch.testing.assert_close(loss, want, rtol=1e-5, atol=1e-4)
    later = ids.clone()
    later[1, 11] = (later[1, 11] + 1) % VOCABULARY
    batch.input_ids = later  # what stands last tells on what is predicted first
    assert masked(model, batch)[0].item() != pytest.approx(loss.item(), rel=1e-6)


def test_masked_sees_its_own_document_only():
    model = make("encoder")
    ids = torch.randint(2, VOCABULARY, (1, 12))
    targets = torch.full((1, 12), -100)
    targets[0, 2] = 7
    positions = torch.cat([torch.arange(5), torch.arange(7)])[None]
    segments = torch.tensor([[0] * 5 + [1] * 7], dtype=torch.int32)
    packed, _, _ = masked(model, Batch(ids, targets, positions, segments, 1, 12))
    alone, _, _ = masked(model, Batch(ids[:, :5], targets[:, :5], positions[:, :5], None, 1, 5))
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


def test_the_routers_losses_weigh_by_the_targets():
    model = make("decoder", experts=Experts(4, 2, balance_loss=0.5)).train()
    ids = torch.randint(2, VOCABULARY, (2, 8))
    batch = Batch(ids, ids.roll(-1, 1), torch.arange(8).expand(2, 8), None, 16)
    with_router, _, _ = causal(model, batch)
    plain = model.cross_entropy(model.hidden(ids), batch.targets)
    torch.testing.assert_close(with_router, plain + 16 * model.auxiliary_loss(), rtol=1e-5, atol=1e-4)
