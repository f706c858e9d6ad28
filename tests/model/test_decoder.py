"""What the transformer promises, whatever the family."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings, strategies as st

from llmwright import families, kernels
from llmwright.kernels import reference
from llmwright.model.cache import KVCache
from llmwright.model.build import new
from llmwright.model.decoder import Decoder

SHAPES = {
    "llama": dict(model_type="llama", hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                  intermediate_size=48, max_position_embeddings=64, initializer_range=0.2),
    "qwen3": dict(model_type="qwen3", hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=1,
                  head_dim=16, intermediate_size=48, max_position_embeddings=64, initializer_range=0.2,
                  tie_word_embeddings=True),
    "gpt2": dict(model_type="gpt2", n_embd=32, n_layer=3, n_head=4, n_positions=64, initializer_range=0.2,
                 attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0),
}


def make(family: str, **change) -> Decoder:
    return new(families.read_config({**SHAPES[family], "vocab_size": 50, **change}), seed=1)


@pytest.fixture(params=SHAPES)
def model(request):
    return make(request.param).eval()


def ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_no_position_sees_a_later_one(model):
    one = ids(1, 40)
    other = one.clone()
    other[0, 25:] = (other[0, 25:] + 1) % 50
    a, b = model(one), model(other)
    torch.testing.assert_close(a[:, :25], b[:, :25], rtol=0, atol=1e-6)
    assert (a[:, 25:] - b[:, 25:]).abs().max() > 0.1


@torch.no_grad()
def test_attention_of_the_model_is_the_readable_one(model, monkeypatch):
    x = ids(3, 37)
    fused = model(x)
    monkeypatch.setattr(kernels, "attention", reference.attention)
    monkeypatch.setattr(kernels, "rms_norm", reference.rms_norm)
    monkeypatch.setattr(kernels, "rotary", reference.rotary)
    torch.testing.assert_close(fused, model(x), rtol=0, atol=1e-4)


def pack(documents: list[torch.Tensor], width: int) -> tuple[torch.Tensor, ...]:
    """Documents in one row, padded: ids, targets, positions, segments, each (1, width)."""
    x, y = torch.zeros(1, width, dtype=torch.int64), torch.full((1, width), -100)
    positions, segments = torch.zeros_like(x), torch.full((1, width), len(documents), dtype=torch.int32)
    at = 0
    for number, document in enumerate(documents):
        n = len(document) - 1
        x[0, at : at + n], y[0, at : at + n] = document[:-1], document[1:]
        positions[0, at : at + n], segments[0, at : at + n] = torch.arange(n), number
        at += n
    return x, y, positions, segments


@pytest.mark.parametrize("family", SHAPES)
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(2, 20), min_size=1, max_size=5), spare=st.integers(0, 4), seed=st.integers(0, 99))
@torch.no_grad()
def test_packed_documents_are_predicted_as_if_alone(family, lengths, spare, seed):
    model = make(family).eval()
    documents = [ids(n, seed=seed + i) for i, n in enumerate(lengths)]
    x, y, positions, segments = pack(documents, sum(lengths) - len(lengths) + spare)
    hidden = model.hidden(x, positions=positions, segments=segments)
    packed, at, alone_loss = model.logits(hidden), 0, 0.0
    for document in documents:
        alone = model(document[None, :-1])
        torch.testing.assert_close(packed[:, at : at + alone.shape[1]], alone, rtol=0, atol=1e-4)
        alone_loss += torch.nn.functional.cross_entropy(alone[0], document[1:], reduction="sum").item()
        at += alone.shape[1]
    packed_loss = kernels.linear_cross_entropy(hidden[0], model.head_weight, y[0]).item()
    assert packed_loss == pytest.approx(alone_loss, rel=1e-5)


def test_packed_gradients_equal_the_separate_ones(model):
    documents = [ids(n, seed=n) for n in (12, 5, 20)]
    x, y, positions, segments = pack(documents, 40)
    hidden = model.hidden(x, positions=positions, segments=segments)
    kernels.linear_cross_entropy(hidden[0], model.head_weight, y[0]).backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for document in documents:
        hidden = model.hidden(document[None, :-1])
        kernels.linear_cross_entropy(hidden[0], model.head_weight, document[1:]).backward()
    for name, p in model.named_parameters():
        scale = p.grad.abs().max().clamp(min=0.01)  # a key bias has no gradient but for rounding
        assert (packed[name] - p.grad).abs().max() < 1e-4 * scale, name


@torch.no_grad()
def test_a_cache_changes_nothing_and_says_when_it_is_full(model):
    x = ids(2, 30)
    cache = KVCache(model.config, 2, 30)
    parts = [model(part, cache=cache) for part in x.split([10, 1, 19], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(x), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="holds 30 positions; 31 are needed"):
        model(x[:, :1], cache=cache)


@torch.no_grad()
def test_rows_taken_out_of_a_cache_go_on_as_before(model):
    x = ids(4, 20)
    cache = KVCache(model.config, 4, 20)
    model(x[:, :15], cache=cache)
    cache.select(torch.tensor([2, 0]))
    torch.testing.assert_close(model(x[[2, 0], 15:], cache=cache), model(x[[2, 0]])[:, 15:], rtol=0, atol=1e-4)


def test_recomputed_activations_give_the_same_gradients(model):
    x, grads = ids(2, 20), []
    for checkpointing in (False, True):
        model.set_activation_checkpointing(checkpointing)
        model.zero_grad()
        model(x).square().mean().backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name in grads[0]:
        torch.testing.assert_close(grads[0][name], grads[1][name], rtol=1e-5, atol=1e-7)


def test_dropout_acts_in_training_only_and_only_where_the_family_has_it():
    model = make("gpt2", attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5)
    x = ids(1, 20)
    model.train()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    assert not any(isinstance(m, torch.nn.Dropout) for m in make("llama").modules())


def test_low_precision_holds_the_matrices_and_nothing_else(model):
    model.set_dtype(torch.bfloat16)
    for name, p in model.named_parameters():
        low = name in model.matrices() or (name.endswith("bias") and "norm" not in name)
        assert p.dtype == (torch.bfloat16 if low else torch.float32), name
    assert model(ids(1, 4)).dtype == torch.float32


def test_tables_in_low_precision_give_the_logits_that_rounding_them_each_time_gives(model):
    other = copy.deepcopy(model).set_dtype(torch.bfloat16, tables=True)
    model.set_dtype(torch.bfloat16)
    assert other.head_weight.dtype == other.embed.weight.dtype == torch.bfloat16
    assert (other.head_weight is other.embed.weight) == (model.head_weight is model.embed.weight)
    assert torch.equal(other(ids(2, 9)), model(ids(2, 9)))


def test_the_matrices_are_those_of_the_blocks(model):
    names = set(model.matrices())
    assert names == {n for n, p in model.named_parameters() if p.ndim == 2 and n.startswith("blocks.")}
    per_block = 6 if model.config.family == "gpt2" else 7
    assert len(names) == 3 * per_block


def test_a_tied_head_is_the_embedding():
    model = make("qwen3")
    assert model.head_weight is model.embed.weight
    assert make("llama").head_weight is not make("llama").embed.weight


def test_every_parameter_gets_a_gradient(model):
    torch.nn.functional.cross_entropy(model(ids(2, 20)).flatten(0, 1), ids(40, seed=9)).backward()
    for name, p in model.named_parameters():
        if name.endswith("key.bias"):
            continue  # softmax does not see what all keys share
        assert p.grad is not None and p.grad.abs().max() > 1e-8, name


def test_a_configuration_does_not_change_after_it_is_made(model):
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.config.d_model = 3
