"""A linear layer whose rows do not depend on each other to the bit, and which is the layer."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llmwright import kernels
from llmwright.kernels import native, reference, steady

needs_native = pytest.mark.skipif(native.library() is None, reason=f"no native kernels here: {native.problem()}")
DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("kind", [pytest.param("native", marks=needs_native), "plain"])
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(N=st.integers(1, 140), K=st.integers(1, 150), outputs=st.integers(1, 100), biased=st.booleans(),
       threads=st.sampled_from([1, 2]))
def test_it_is_the_layer(kind, dtype, N, K, outputs, biased, threads):
    torch.manual_seed(N * K + outputs)
    x, weight = torch.randn(N, K).to(dtype), torch.randn(outputs, K).to(dtype)
    bias = torch.randn(outputs).to(dtype) if biased else None
    torch.set_num_threads(threads)
    got = (steady.linear if kind == "native" else steady.plain)(x, weight, bias)
    torch.set_num_threads(1)
    wanted = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    defined = reference.linear_steady(x, weight, bias)
    # bfloat16: the result is rounded to 8 bits
    tolerance = 2e-6 if dtype == torch.float32 else 2**-8
    scale = F.linear(x.abs(), weight.abs()).max().double()
    for y in (got, defined):
        assert y.dtype == dtype and (y - wanted).abs().max() <= 2e-6 * scale + tolerance * wanted.abs().max()


@pytest.mark.parametrize("kind", [pytest.param("native", marks=needs_native), "plain"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_rows_bits_do_not_depend_on_its_neighbours(kind, dtype, threads):
    torch.manual_seed(0)
    linear = steady.linear if kind == "native" else steady.plain
    x, weight, bias = torch.randn(300, 200).to(dtype), torch.randn(170, 200).to(dtype), torch.randn(170).to(dtype)
    torch.set_num_threads(threads)
    alone = torch.cat([linear(row[None], weight, bias) for row in x])
    for n in (1, 2, 3, 4, 5, 6, 7, 8, 31, 32, 33, 127, 128, 129, 256, 300):
        start = (7 * n) % (301 - n)
        assert torch.equal(linear(x[start : start + n], weight, bias), alone[start : start + n])


@pytest.mark.parametrize("dtype", DTYPES)
def test_by_name_it_takes_slices_and_shapes_as_they_lie(dtype):
    wide, layer = torch.randn(2, 5, 99).to(dtype), torch.nn.Linear(33, 7).to(dtype)
    with torch.inference_mode():
        got = kernels.linear_steady(wide[..., 33:66], layer.weight, layer.bias)
        assert got.shape == (2, 5, 7)
        assert torch.equal(got, kernels.linear_steady(wide[..., 33:66].contiguous(), layer.weight, layer.bias))
        assert kernels.linear_steady(torch.empty(0, 33).to(dtype), layer.weight).shape == (0, 7)
    torch.testing.assert_close(got, layer(wide[..., 33:66]), rtol=2**-6, atol=2**-6)
    assert kernels.linear_steady(wide[..., :33], layer.weight).requires_grad  # a gradient needs PyTorch's own
