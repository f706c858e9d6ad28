"""What --explain shows is what happens: the model's own numbers and `generate`'s own choices."""

import pytest
import torch
from small import TRANSLATORS, model, tokenizer, translator

from llmwright import families
from llmwright.engine.explain import explain
from llmwright.engine.generate import generate
from llmwright.engine.sampler import GREEDY, Sampling
from llmwright.errors import RequestError
from llmwright.kernels import reference
from llmwright.model.build import new
from llmwright.model.config import (
    ALiBi, Attention, Experts, FeedForward, Head, Learned, ModelConfig, Norm, Relative, Rotary, Sinusoidal,
)

SAMPLINGS = [GREEDY, Sampling(1.3, top_k=40, top_p=0.9, seed=3), Sampling(repetition_penalty=1.5, typical=0.7, seed=1)]


def made(family: str):
    return translator(family) if family in TRANSLATORS else model(family)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("family", ["llama", "gpt2", *TRANSLATORS])
def test_the_choices_are_those_of_generate(family, sampling):
    ours = made(family)
    wanted = generate(ours, tokenizer(), "import os", max_tokens=5, sampling=sampling)[0]
    found = explain(ours, tokenizer(), "import os", sampling=sampling, steps=5)
    assert [choice.chosen[0] for choice in found.choices] == wanted.ids and found.text == wanted.text
    told = torch.tensor([choice.chosen[1] for choice in found.choices]).log().tolist()
    assert told == pytest.approx(wanted.log_probs, abs=1e-3)


PARTS = [
    dict(positions=scheme) for scheme in (Rotary(), Rotary(dim=4), ALiBi(), Relative(), Sinusoidal(), Learned(64))
] + [
    dict(residual="post"), dict(residual="sandwich"), dict(residual="parallel"), dict(residual="parallel_two_norms"),
    dict(windows=(3, None)), dict(experts=Experts(4, 2)), dict(head=Head("gelu", 0.5, True, 3.0)),
    dict(embedding_norm=True, embedding_scale=4.0, norm=Norm("layer", bias=True)),
    dict(attention=Attention(4, 1, 8, qk_norm=True, softcap=5.0, scale=0.3)),
]


@pytest.mark.parametrize("change", PARTS, ids=str)
@torch.no_grad()
def test_the_last_layer_says_what_the_model_says_whatever_its_parts(change):
    parts = dict(
        family="llama", vocab_size=tokenizer().vocab_size, d_model=16, n_layers=2, context=64,
        attention=Attention(4, 2, 8), feed_forward=FeedForward(24), positions=Rotary(), init_std=0.3,
    )
    ours = new(ModelConfig(**{**parts, **change}), seed=2).eval()
    found = explain(ours, tokenizer(), "import os")
    choice = found.choices[0]
    assert choice.layers[-1].says[0] == pytest.approx(choice.top[0][:2], abs=1e-5)
    p = ours(torch.tensor([found.ids]))[0, -1].softmax(-1)
    assert [share for _, share, _ in choice.top] == pytest.approx(p.topk(10).values.tolist(), abs=1e-5)
    for layer in choice.layers:
        assert layer.looks == sorted(layer.looks, key=lambda look: -look[1])
        assert 0 < sum(weight for _, weight in layer.looks) <= 1.001
    window = (change.get("windows") or [None])[0]
    if window:  # the first layer sees no further
        assert min(place for place, weight in choice.layers[0].looks if weight > 0) >= len(found.ids) - window


@torch.no_grad()
def test_looks_are_the_weights_that_made_the_layers_output():
    """The weighted values, through the output matrix, are what the attention really gave."""
    ours = model("llama")
    kept = {}
    hook = ours.blocks[1].attention.register_forward_hook(lambda m, given, out: kept.update(given=given, out=out))
    ids = explain(ours, tokenizer(), "import os").ids
    hook.remove()
    x, geometry = kept["given"][:2]
    q, k, v = ours.blocks[1].attention.project(x, geometry)
    weights = reference.attention_weights(q, k, causal=True)  # (1, H, T, S)
    taken = torch.einsum("bhts,bshc->bthc", weights, v.repeat_interleave(2, dim=2)).flatten(2)
    torch.testing.assert_close(ours.blocks[1].attention.out(taken), kept["out"], rtol=1e-4, atol=1e-4)
    found = explain(ours, tokenizer(), "import os").choices[0].layers[1].looks
    last = weights[0, :, -1].mean(0)
    assert [w for _, w in found] == pytest.approx(last.topk(4).values.tolist(), abs=1e-5)
    assert [place for place, _ in found] == last.topk(4).indices.tolist() and len(ids) == len(last)


def test_the_cuts_add_up():
    sampling = Sampling(0.9, top_k=50, top_p=0.8, min_p=0.01, seed=0)
    choice = explain(model(), tokenizer(), "x = ", sampling=sampling).choices[0]
    assert [cut.name for cut in choice.cuts] == ["temperature", "top_k", "top_p", "min_p"]
    kept = [cut.kept for cut in choice.cuts]
    assert kept == sorted(kept, reverse=True) and kept[1] == 50
    assert choice.cuts[0].removed == 0 and 0 < choice.cuts[2].removed <= 0.2
    assert sum(drawn > 0 for _, _, drawn in choice.top) == min(10, kept[-1])


def test_penalties_are_told():
    sampling = Sampling(0.0, logit_bias={5: 100.0})
    choice = explain(model(), tokenizer(), "x", sampling=sampling).choices[0]
    assert choice.chosen[0] == 5 and choice.changed == 1 and choice.chosen[2] == 1.0


@pytest.mark.parametrize("family", ["llama", "marian"])
def test_nothing_stays_behind_in_the_model(family):
    ours = made(family)
    explain(ours, tokenizer(), "import os")
    assert not any(module._forward_hooks for module in ours.modules())


def test_an_encoder_is_told_what_it_can_do():
    config = families.read_config(dict(
        model_type="bert", vocab_size=450, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, architectures=["BertForMaskedLM"]))
    with pytest.raises(RequestError, match="it reads text and writes none"):
        explain(new(config), tokenizer(), "x")
