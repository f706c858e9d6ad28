"""New weights follow the family's paper."""

import pytest
import torch
from test_decoder import SHAPES

from llmwright import families
from llmwright.model.build import new


def wide(family: str, seed: int = 3):
    change = {"gpt2": dict(n_embd=128, n_layer=8, n_head=4, initializer_range=0.02)}.get(
        family, dict(hidden_size=128, num_hidden_layers=8, intermediate_size=352, initializer_range=0.02))
    return new(families.read_config({**SHAPES[family], **change, "vocab_size": 1000}), seed=seed)


def near(p: torch.Tensor, std: float) -> bool:
    """Within 5 standard errors of a normal sample's mean and standard deviation."""
    n = p.numel()
    return abs(p.std().item() / std - 1) < 5 / (2 * n) ** 0.5 and abs(p.mean().item()) < 5 * std / n**0.5


@pytest.mark.parametrize("family", SHAPES)
def test_matrices_are_normal_with_the_familys_deviation(family):
    model = wide(family)
    # GPT-2, section 2.3: what writes to the residual stream is scaled by 1/sqrt(its 2 writes a layer); not in Llama
    residual = 0.02 * (2 * 8) ** -0.5 if family == "gpt2" else 0.02
    for name, p in model.named_parameters():
        if p.ndim == 2:
            writes = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
            assert near(p, residual if writes else 0.02), name


@pytest.mark.parametrize("family", SHAPES)
def test_norms_begin_at_one_and_biases_at_zero(family):
    for name, p in wide(family).named_parameters():
        if p.ndim == 1:
            wanted = 1.0 if name.endswith("weight") else 0.0
            assert p.unique().tolist() == [wanted], name


@pytest.mark.parametrize("family", SHAPES)
def test_a_seed_gives_the_same_weights_and_another_gives_others(family):
    a, b, c = wide(family), wide(family), wide(family, seed=4)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    assert not torch.equal(a.embed.weight, c.embed.weight)


@torch.no_grad()
@pytest.mark.parametrize("family", SHAPES)
def test_a_new_model_knows_nothing(family):
    model = wide(family).eval()
    ids = torch.randint(0, 1000, (8, 64), generator=torch.Generator().manual_seed(0))
    other = torch.randint(0, 1000, (8, 64), generator=torch.Generator().manual_seed(1))
    loss = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), other.flatten())
    assert loss.item() == pytest.approx(torch.tensor(1000.0).log().item(), abs=0.15)  # logits of deviation ~0.2
