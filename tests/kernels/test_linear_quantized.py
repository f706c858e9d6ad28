"""Linear layers in 8 and 4 bits by groups: the native kernel gives what the definition says, each row by itself."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llmwright import kernels
from llmwright.kernels import native, quantized, reference

needs_native = pytest.mark.skipif(
    not native.vnni(), reason="no native kernel of quantized layers here (AVX-512 VNNI and a compiler)")


@needs_native
@pytest.mark.parametrize("bits", [8, 4])
@settings(max_examples=60, deadline=None)
@given(
    N=st.integers(1, 200), K=st.integers(1, 150), outputs=st.integers(1, 200), biased=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]), threads=st.sampled_from([1, 2, 3]), shift=st.floats(-3, 3),
)
def test_the_native_kernel_equals_its_definition(bits, N, K, outputs, biased, dtype, threads, shift):
    torch.manual_seed(N * K + outputs)
    x = (torch.randn(N, K) + shift).to(dtype)
    weight, bias = torch.randn(outputs, K) + shift / 9, torch.randn(outputs) if biased else None
    parts = reference.quantize_groups(weight, bits)
    torch.set_num_threads(threads)
    got = kernels.linear_quantized(x, kernels.quantized_weight(weight, bias, bits=bits))
    torch.set_num_threads(1)
    wanted = reference.linear_quantized(x.float(), *parts, bias)
    # float32: scaled sums of groups in float32, not exact. bfloat16: the result is rounded to 8 bits
    tolerance = 2e-6 if dtype == torch.float32 else 2**-8
    assert got.dtype == dtype and got.shape == wanted.shape
    scale = F.linear(x.float().abs(), weight.abs(), bias.abs() if biased else None).max()  # of what is summed
    assert (got.float() - wanted).abs().max() <= tolerance * scale


@needs_native
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_rows_bits_do_not_depend_on_its_neighbours(bits, dtype, threads):
    torch.manual_seed(0)
    w = kernels.quantized_weight(torch.randn(200, 96), torch.randn(200), bits=bits)
    x = torch.randn(300, 96).to(dtype)
    torch.set_num_threads(threads)
    alone = torch.cat([kernels.linear_quantized(row[None], w) for row in x])
    for n in range(1, 301):
        start = (7 * n) % (301 - n)
        assert torch.equal(kernels.linear_quantized(x[start : start + n], w), alone[start : start + n])
    big = kernels.quantized_weight(torch.randn(4000, 576), bits=bits)  # enough work for threads
    x = torch.randn(130, 576).to(dtype)
    whole = kernels.linear_quantized(x, big)
    torch.set_num_threads(1)
    assert all(torch.equal(kernels.linear_quantized(x[i : i + 1], big)[0], whole[i]) for i in (0, 5, 97, 129))
    order = torch.randperm(130)
    assert torch.equal(kernels.linear_quantized(x[order], big), whole[order])


@pytest.mark.parametrize("bits", [8, 4])
@settings(max_examples=30, deadline=None)
@given(outputs=st.integers(1, 100), K=st.integers(1, 100))
def test_panels_hold_exactly_what_was_quantized(bits, outputs, K):
    torch.manual_seed(outputs + K)
    parts = reference.quantize_groups(torch.randn(outputs, K), bits)
    panels = quantized.panels(*parts)
    assert panels.nbytes == -(-outputs // 32) * -(-K // 32) * (1088 if bits == 8 else 640)  # 8.5 and 5 bits a weight
    for found, made in zip(quantized.unpacked(panels, bits, outputs, K), parts):
        assert (found is None and made is None) or torch.equal(found, made)


def test_eight_bits_by_hand():
    """The largest weight, 12.7, becomes 127 steps of 0.1; the largest x, 2.54, 127 of 0.02."""
    weight = torch.tensor([[12.7, -0.1, 0.04, 6.35]])
    whole, scale, minimum = reference.quantize_groups(weight, 8)
    assert whole.tolist() == [[127, -1, 0, 64]] and minimum is None
    assert scale.item() == pytest.approx(0.1, rel=1e-3)  # float16
    x = torch.tensor([[2.54, 1.0, 1.0, -0.02]])  # 127, 50, 50, -1
    wanted = (127 * 127 - 50 - 64) * scale.item() * 0.02 + 1
    assert reference.linear_quantized(x, whole, scale, None, torch.tensor([1.0])).item() == pytest.approx(wanted, rel=1e-6)


def test_four_bits_by_hand():
    weight = torch.tensor([[-1.0, 2.75, 0.0, 0.3]])  # 15 steps of 0.25 from -1
    whole, scale, minimum = reference.quantize_groups(weight, 4)
    assert (whole.tolist(), scale.item(), minimum.item()) == ([[0, 15, 4, 5]], 0.25, -1.0)
    assert reference.dequantize_groups(whole, scale, minimum).tolist() == [[-1.0, 2.75, 0.0, 0.25]]
    x = torch.tensor([[127.0, 1.0, 2.0, 3.0]])  # whole numbers as they are
    assert reference.linear_quantized(x, whole, scale, minimum).item() == pytest.approx(-127 + 2.75 + 0.75)


@pytest.mark.parametrize("bits, least, most", [(8, 1e-3, 0.01), (4, 0.02, 0.1)])
def test_what_few_bits_lose(bits, least, most):
    """8 bits: a step is 1/127 of a group's largest; 4 bits: 1/15 of its range. Errors of 384 products mostly cancel."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(64, 384), torch.randn(96, 384) / 20, torch.randn(96)
    exact = F.linear(x, weight, bias)
    got = kernels.linear_quantized(x, kernels.quantized_weight(weight, bias, bits=bits))
    assert least < (got - exact).norm() / exact.norm() < most


@pytest.mark.parametrize("bits", [8, 4])
def test_nothing_stays_nothing_and_what_is_no_number_stays_none(bits):
    w = kernels.quantized_weight(torch.zeros(5, 40), torch.arange(5.0), bits=bits)
    assert torch.equal(kernels.linear_quantized(torch.randn(3, 40), w), torch.arange(5.0).expand(3, 5))
    w = kernels.quantized_weight(torch.randn(70, 40), torch.arange(70.0), bits=bits)
    assert torch.equal(kernels.linear_quantized(torch.zeros(3, 40), w), torch.arange(70.0).expand(3, 70))
    assert kernels.linear_quantized(torch.full((1, 40), 1e-38), w).sub(torch.arange(70.0)).abs().max() < 1e-30
    x = torch.randn(3, 40)
    x[1, 7] = torch.nan
    x[2, 39] = torch.inf
    y = kernels.linear_quantized(x, w)
    assert y[0].isfinite().all() and y[1].isnan().all() and not y[2].isfinite().any()


@pytest.mark.parametrize("K", [4, 32, 37])
def test_slices_and_shapes_are_taken_as_they_lie(K):
    wide, w = torch.randn(2, 5, 3 * K), kernels.quantized_weight(torch.randn(8, K), torch.randn(8))
    got = kernels.linear_quantized(wide[..., K : 2 * K], w)
    assert got.shape == (2, 5, 8)
    assert torch.equal(got, kernels.linear_quantized(wide[..., K : 2 * K].contiguous(), w))
    assert kernels.linear_quantized(torch.empty(0, K), w).shape == (0, 8)


@pytest.mark.parametrize("bits", [8, 4])
def test_without_the_kernel_the_weights_are_made_whole_again(bits):
    weight, bias, x = torch.randn(50, 70), torch.randn(50), torch.randn(4, 70)
    plain = quantized.make(weight, bias, bits, packed=False)
    packed = quantized.make(weight, bias, bits, packed=True)
    assert torch.equal(plain.whole(), packed.whole())
    assert torch.equal(kernels.linear_quantized(x, plain), F.linear(x, plain.dense, bias))
    double = kernels.linear_quantized(x.double(), packed)  # no kernel for these
    torch.testing.assert_close(double.float(), F.linear(x, plain.dense, bias), rtol=1e-4, atol=1e-4)


@needs_native
def test_no_rows_cost_nothing():
    weight = kernels.quantized_weight(torch.randn(64, 32))
    assert kernels.linear_quantized(torch.empty(2, 0, 32, dtype=torch.bfloat16), weight).shape == (2, 0, 64)
