"""The activation formula counts what autograd really keeps for the backward pass of the real model."""

from dataclasses import replace

import pytest
import torch

from llmwright import kernels
from llmwright.families.shapes import shape
from llmwright.model.config import Attention, FeedForward, Learned, ModelConfig, Norm, Rotary
from llmwright.model.build import new
from llmwright.plan import memory
from llmwright.recipe import FAMILIES, Model

LLAMA = ModelConfig("llama", 320, 64, 3, 96, Attention(4, 2, 16), FeedForward(176), Rotary())
QWEN3 = replace(LLAMA, family="qwen3", attention=Attention(4, 4, 32, qk_norm=True))
GPT2 = ModelConfig("gpt2", 320, 64, 3, 96, Attention(4, 4, 16, qkv_bias=True, out_bias=True),
                   FeedForward(256, "gelu_tanh", gated=False, bias=True), Learned(96), Norm("layer", 1e-5, bias=True),
                   tie_embeddings=True)
DROPPING = replace(GPT2, residual_dropout=0.1)


def kept(config: ModelConfig, batch: int, context: int, precision: str, checkpointing: bool = False,
         target: int | None = None) -> int:
    """Bytes of the distinct storages that the blocks' and the last norm's backward pass keep, weights left out."""
    model = new(config).set_dtype(getattr(torch, precision))
    model.set_activation_checkpointing(checkpointing)
    model.train()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, torch.Tensor] = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(0, config.vocab_size, (batch, context))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        if target:
            hidden = model.hidden(ids[:, :target], model.encode(ids))
        else:
            hidden = model.hidden(ids)
    found[hidden.untyped_storage().data_ptr()] = hidden  # the loss starts from it
    return sum(t.untyped_storage().nbytes() for t in found.values())


@pytest.mark.skipif(kernels.using()["attention"] != "native", reason="counts the native kernels' saved tensors")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", [LLAMA, QWEN3, GPT2, DROPPING], ids=["llama", "qwen3", "gpt2", "gpt2-dropout"])
def test_formula_counts_what_autograd_keeps(config, precision):
    predicted = memory.activation_bytes(config, 4, 96, precision)
    real = kept(config, 4, 96, precision)
    # besides, once for the model: ids, the rotation's table, a layer norm's weights in bfloat16
    assert predicted == pytest.approx(real, rel=0.01)
    # and it grows as it should: twice the rows, twice the bytes of tokens
    assert 2 * predicted == memory.activation_bytes(config, 8, 96, precision)


@pytest.mark.skipif(kernels.using()["attention"] != "native", reason="counts the native kernels' saved tensors")
@pytest.mark.parametrize("precision, dropout", [("float32", 0.0), ("bfloat16", 0.0), ("float32", 0.1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_formula_counts_what_every_family_keeps(family, precision, dropout):
    """Windows, sandwiched norms, parallel halves, capped or shifted scores, experts, and stacks that look at another."""
    spec = Model(family=family, d_model=64, n_layers=3, n_heads=4, context=96, dropout=dropout)
    config = shape(spec, 320, {"pad": 0})
    target = 40 if config.kind == "encoder-decoder" else None
    predicted = memory.activation_bytes(config, 4, 96, precision, target=target)
    # besides, once for the model: ids, tables of rotations and buckets, the causal masks of a matrix of scores
    assert predicted == pytest.approx(kept(config, 4, 96, precision, target=target), rel=0.03)


def test_checkpointing_of_two_stacks_keeps_each_layers_input_and_one_layer_of_each():
    t5 = shape(Model(family="t5", d_model=64, n_layers=2, n_encoder_layers=3, n_heads=4, context=32), 320, {"pad": 0})
    predicted = memory.activation_bytes(t5, 2, 32, activation_checkpointing=True, target=8)
    row = 4 * 64
    encoder = memory.block_activation_bytes(t5, "float32", 32, 2)
    cross = row * 2 + 4 + row * (2 + 2 * 32 / 8) + 4 * 4  # norm, its statistic, query and result, source's keys and values
    decoder = memory.block_activation_bytes(t5, "float32", 8, 2) + cross
    assert predicted == 2 * 32 * (3 * row + encoder + 2 * row) + 2 * 8 * (2 * row + decoder + 2 * row)
