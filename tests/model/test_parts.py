"""Position schemes and block layouts against the equations of their papers, worked by hand."""

import math

import pytest
import torch

from llmwright.model import positions
from llmwright.model.build import new
from llmwright.model.config import (
    ALiBi, Attention, Experts, FeedForward, Head, Learned, ModelConfig, Norm, Relative, Rotary, Sinusoidal,
)


def config(**change) -> ModelConfig:
    parts = dict(
        family="llama", vocab_size=40, d_model=16, n_layers=3, context=64, attention=Attention(4, 2, 4),
        feed_forward=FeedForward(24), positions=Rotary(), init_std=0.3,
    )
    return ModelConfig(**{**parts, **change})


def ids(*shape, seed=0):
    return torch.randint(0, 40, shape, generator=torch.Generator().manual_seed(seed))


def test_sinusoids_are_those_of_the_paper_in_halves():
    x = positions.SinusoidalPositions(6).embed(torch.zeros(1, 3, 6), torch.tensor([[0, 1, 50]]))
    for row, p in enumerate((0, 1, 50)):
        angles = [p / 10_000 ** (2 * i / 6) for i in range(3)]
        by_hand = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert x[0, row].tolist() == pytest.approx(by_hand, abs=1e-5)


def test_alibi_slopes_are_those_of_the_paper():
    assert positions.alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    assert positions.alibi_slopes(6).tolist() == pytest.approx([0.25, 1 / 16, 1 / 64, 1 / 256, 0.5, 0.125])


def test_alibi_takes_slope_times_distance():
    bias = positions.ALiBiPositions(ALiBi(), 2).bias(torch.tensor([[2, 3]]), 4, causal=True)  # queries at places 2 and 3
    assert bias[0, 0, 0, :3].tolist() == pytest.approx([-2 / 16, -1 / 16, 0])
    assert bias[0, 1, 1].tolist() == pytest.approx([-3 / 256, -2 / 256, -1 / 256, 0])


@pytest.mark.parametrize("scheme", [Rotary(), Rotary(dim=2), ALiBi(), Relative(), Sinusoidal(), Learned(64)], ids=repr)
@pytest.mark.parametrize("change", [
    {}, dict(residual="post"), dict(residual="sandwich"), dict(residual="parallel"), dict(residual="parallel_two_norms"),
    dict(windows=(3, None, 5)), dict(experts=Experts(4, 2)), dict(head=Head("gelu", 0.5, True, 3.0)),
    dict(embedding_norm=True, embedding_scale=4.0, norm=Norm("layer", bias=True)),
], ids=repr)
@torch.no_grad()
def test_whatever_the_parts_no_position_sees_a_later_one_and_a_cache_changes_nothing(scheme, change):
    from llmwright.model.cache import KVCache

    model = new(config(positions=scheme, **change), seed=3).eval()
    x = ids(2, 20)
    other = x.clone()
    other[:, 12:] = (other[:, 12:] + 1) % 40
    whole = model(x)
    torch.testing.assert_close(model(other)[:, :12], whole[:, :12], rtol=0, atol=1e-5)
    cache = KVCache(model.config, 2, 20)
    parts = [model(part, cache=cache) for part in x.split([7, 1, 1, 11], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-4)


@torch.no_grad()
def test_an_encoder_sees_both_ways_and_padding_changes_nothing():
    model = new(config(kind="encoder", residual="post", norm=Norm("layer", bias=True), positions=Learned(64), token_types=2,
                       pooler=True), seed=3).eval()
    x = ids(1, 9)
    changed = x.clone()
    changed[0, -1] += 1
    assert (model(x)[0, 0] - model(changed)[0, 0]).abs().max() > 1e-3
    padded = torch.cat((x, ids(1, 4, seed=9)), 1)
    seen = torch.arange(13)[None] < 9
    torch.testing.assert_close(model(padded, mask=seen[:, None, None])[:, :9], model(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(model.vectors(padded, seen), model.vectors(x), rtol=0, atol=1e-5)
    assert model.vectors(x).norm().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("scheme", [Sinusoidal(), Relative()], ids=repr)
@torch.no_grad()
def test_an_encoder_decoder_reads_the_source_and_writes_step_by_step_what_it_writes_at_once(scheme):
    from llmwright.model.cache import KVCache

    model = new(config(kind="encoder-decoder", n_encoder_layers=2, positions=scheme), seed=3).eval()
    source, target = ids(2, 8), ids(2, 6, seed=1)
    whole = model(source, target)
    seen = torch.arange(12)[None] < 8
    padded = torch.cat((source, ids(2, 4, seed=5)), 1)
    torch.testing.assert_close(model(padded, target, seen.expand(2, -1)), whole, rtol=0, atol=1e-5)
    memory, cache = model.encode(source, keep=True), KVCache(model.config, 2, 6)
    parts = [model.logits(model.hidden(part, memory, cache=cache)) for part in target.split([1, 2, 3], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-4)
    changed = source.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 40
    assert (model(changed, target) - whole).abs().max() > 1e-3


@torch.no_grad()
def test_experts_add_up_by_the_routers_shares():
    from llmwright.model.experts import MixtureOfExperts

    torch.manual_seed(0)
    mixture = MixtureOfExperts(Experts(3, 2), FeedForward(8), 4).eval()
    x = torch.randn(1, 5, 4)
    shares = mixture.router(x[0]).softmax(-1)
    for token in range(5):
        best = shares[token].argsort(descending=True)[:2]
        weights = shares[token, best] / shares[token, best].sum()
        by_hand = sum(w * mixture.experts[e](x[0, token]) for w, e in zip(weights, best.tolist()))
        torch.testing.assert_close(mixture(x)[0, token], by_hand, rtol=0, atol=1e-6)


def test_the_balance_loss_is_least_when_all_experts_are_chosen_alike():
    from llmwright.model.experts import MixtureOfExperts

    mixture = MixtureOfExperts(Experts(4, 1, balance_loss=1.0), FeedForward(8), 4).train()
    with torch.no_grad():
        mixture.router.weight.copy_(torch.eye(4) * 20)
    mixture(torch.eye(4)[None])  # each token to its own expert
    assert mixture.auxiliary_loss.item() == pytest.approx(1, abs=1e-4)
    mixture(torch.eye(4)[:1].repeat(4, 1)[None])  # all to the first
    assert mixture.auxiliary_loss.item() == pytest.approx(4, abs=1e-4)
    mixture.spec = Experts(4, 1, z_loss=0.5)
    with torch.no_grad():
        mixture.router.weight.zero_()
    mixture(torch.eye(4)[None])
    assert mixture.auxiliary_loss.item() == pytest.approx(0.5 * math.log(4) ** 2, rel=1e-5)


def test_losses_of_a_capped_and_biased_head_are_those_of_its_logits():
    model = new(config(head=Head(bias=True, softcap=2.0)), seed=1)
    with torch.no_grad():
        model.head.bias.normal_()
    x, targets = ids(2, 10), ids(2, 10, seed=1)
    targets[0, :3] = -100
    hidden = model.hidden(x)
    wanted = torch.nn.functional.cross_entropy(model(x).flatten(0, 1), targets.flatten(), reduction="sum")
    torch.testing.assert_close(model.cross_entropy(hidden, targets), wanted)
    assert model.token_losses(hidden, targets).sum().item() == pytest.approx(wanted.item(), rel=1e-5)
    assert model.token_losses(hidden, targets)[0, 0] == 0
    model.cross_entropy(hidden, targets).backward()
    assert model.head.bias.grad.abs().max() > 0
