"""A linear layer in 8 bits: the native kernel gives what the definition says, and that is near the exact layer."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llmwright import kernels
from llmwright.kernels import int8, native, reference

needs_native = pytest.mark.skipif(not native.vnni(), reason="no native 8-bit kernel here (AVX-512 VNNI and a compiler)")


@needs_native
@settings(max_examples=60, deadline=None)
@given(
    N=st.integers(1, 200), K=st.integers(1, 90), outputs=st.integers(1, 200), gelu=st.booleans(), biased=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]), threads=st.sampled_from([1, 2, 3]), shift=st.floats(-3, 3),
)
def test_the_native_kernel_equals_its_definition(N, K, outputs, gelu, biased, dtype, threads, shift):
    torch.manual_seed(N * K + outputs)
    x = (torch.randn(N, K) + shift).to(dtype)
    weight, scale = reference.quantize_weight(torch.randn(outputs, K))
    bias = torch.randn(outputs) if biased else None
    torch.set_num_threads(threads)
    got = int8.linear(x, int8.packed(weight, scale, bias), gelu)
    torch.set_num_threads(1)
    wanted = reference.linear_int8(x, weight, scale, bias, gelu=gelu)
    # float32: sums in another order. bfloat16: what lies between two of its numbers may be rounded to either
    tolerance = 1e-6 if dtype == torch.float32 else 2**-7
    assert (got.float() - wanted.float()).abs().max() <= tolerance * wanted.float().abs().max() + 1e-6


@needs_native
@pytest.mark.parametrize("K", [4, 16, 37])
def test_slices_and_shapes_are_taken_as_they_lie(K):
    wide = torch.randn(2, 5, 3 * K)
    weight = kernels.int8_weight(torch.randn(8, K), torch.randn(8))
    got = kernels.linear_int8(wide[..., K : 2 * K], weight)
    assert got.shape == (2, 5, 8)
    assert torch.equal(got, kernels.linear_int8(wide[..., K : 2 * K].contiguous(), weight))


@needs_native
def test_a_rows_result_does_not_depend_on_its_neighbours():
    x, w = torch.randn(300, 64), kernels.int8_weight(torch.randn(130, 64), torch.randn(130))
    whole = kernels.linear_int8(x, w)
    assert all(torch.equal(kernels.linear_int8(x[i : i + 1], w)[0], whole[i]) for i in (0, 5, 97, 299))


def test_rows_of_nothing_and_of_one_sign():
    w = kernels.int8_weight(torch.randn(70, 32), torch.arange(70.0))
    assert torch.equal(kernels.linear_int8(torch.zeros(3, 32), w), torch.arange(70.0).expand(3, 70))
    for x in (torch.rand(4, 32) + 1, -torch.rand(4, 32) - 1):
        exact = F.linear(x, w.weight * w.scale[:, None], w.bias)
        assert (kernels.linear_int8(x, w) - exact).abs().max() < 0.02 * exact.abs().max()


def test_eight_bits_lose_less_than_a_hundredth():
    """A step is 1/255 of a row's range and 1/127 of the largest weight; the errors of 384 products mostly cancel."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(64, 384), torch.randn(96, 384) / 20, torch.randn(96)
    got, exact = kernels.linear_int8(x, kernels.int8_weight(weight, bias)), F.linear(x, weight, bias)
    assert 1e-4 < (got - exact).norm() / exact.norm() < 0.01
    assert not torch.equal(got, exact)


def test_a_weight_of_zeros_stays_zero():
    w = kernels.int8_weight(torch.zeros(5, 8))
    assert torch.equal(kernels.linear_int8(torch.randn(3, 8), w), torch.zeros(3, 5))


def test_gelu_is_the_exact_one():
    x = torch.linspace(-12, 12, 2001)[:, None]
    identity = kernels.Int8Weight(torch.ones(1, 1, dtype=torch.int8), torch.ones(1), None)
    w = int8.packed(identity.weight, identity.scale, None) if native.vnni() else identity
    got = kernels.linear_int8(x, w, gelu=True)  # a row of one number: its byte stands for it exactly
    torch.testing.assert_close(got, F.gelu(x), rtol=0, atol=2e-6)
