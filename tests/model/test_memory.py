"""A decoder beside an encoder: several texts of one source share its memory, and a cache changes nothing."""

import pytest
import torch

from llmwright.model.build import new
from llmwright.model.cache import KVCache
from llmwright.model.config import Attention, FeedForward, ModelConfig, Norm, Relative, Sinusoidal


def config(**change) -> ModelConfig:
    parts = dict(
        family="t5", kind="encoder-decoder", n_encoder_layers=2, vocab_size=40, d_model=16, n_layers=2, context=64,
        attention=Attention(4, 4, 4), feed_forward=FeedForward(24), positions=Relative(8, 16), init_std=0.4,
    )
    return ModelConfig(**{**parts, **change})


def ids(*shape, seed=0):
    return torch.randint(0, 40, shape, generator=torch.Generator().manual_seed(seed))


KINDS = [{}, dict(residual="post", positions=Sinusoidal(), norm=Norm("layer", bias=True))]


@pytest.mark.parametrize("change", KINDS, ids=["relative", "sinusoidal, post"])
@torch.no_grad()
def test_texts_side_by_side_share_the_memory_of_their_source(change):
    model = new(config(**change), seed=1).eval()
    source, mask = ids(2, 9), torch.ones(2, 9, dtype=torch.bool)
    mask[1, 6:] = False
    target = ids(6, 5, seed=1)  # three texts of each source
    wanted = model(source.repeat_interleave(3, 0), target, mask.repeat_interleave(3, 0))
    assert torch.allclose(model.logits(model.hidden(target, model.encode(source, mask))), wanted, atol=1e-5)


@pytest.mark.parametrize("change", KINDS, ids=["relative", "sinusoidal, post"])
@torch.no_grad()
def test_rows_that_take_over_from_others_go_on_as_if_they_had_written_it(change):
    model = new(config(**change), seed=1).eval()
    source, target, rows = ids(2, 9), ids(4, 6, seed=1), torch.tensor([1, 1, 2, 3])
    memory, cache = model.encode(source, keep=True), KVCache(model.config, 4, 8)
    model.hidden(target, memory, cache=cache)
    cache.reorder(rows)
    step = model.logits(model.hidden(ids(4, 1, seed=2), memory, cache=cache))[:, -1]
    whole = torch.cat((target[rows], ids(4, 1, seed=2)), 1)
    assert torch.allclose(step, model(source.repeat_interleave(2, 0), whole)[:, -1], atol=1e-5)
