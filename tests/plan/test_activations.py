"""The activation formula counts what autograd really keeps for the backward pass of the real model."""

from dataclasses import replace

import pytest
import torch

from llmwright import kernels
from llmwright.model.config import Attention, FeedForward, Learned, ModelConfig, Norm, Rotary
from llmwright.model.build import new
from llmwright.plan import memory

LLAMA = ModelConfig("llama", 320, 64, 3, 96, Attention(4, 2, 16), FeedForward(176), Rotary())
QWEN3 = replace(LLAMA, family="qwen3", attention=Attention(4, 4, 32, qk_norm=True))
GPT2 = ModelConfig("gpt2", 320, 64, 3, 96, Attention(4, 4, 16, qkv_bias=True, out_bias=True),
                   FeedForward(256, "gelu_tanh", gated=False, bias=True), Learned(96), Norm("layer", 1e-5, bias=True),
                   tie_embeddings=True)
DROPPING = replace(GPT2, residual_dropout=0.1)


def kept(config: ModelConfig, batch: int, context: int, precision: str, checkpointing: bool = False) -> int:
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
