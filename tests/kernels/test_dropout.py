"""Dropout drops the share it is asked for, each number by itself, and its backward drops the same numbers."""

import pytest
import torch

from llmwright import kernels
from llmwright.kernels import fused, native, reference

IMPLEMENTATIONS = [
    pytest.param(fused.dropout, marks=pytest.mark.skipif(native.library() is None, reason="no native kernels here")),
    reference.dropout,
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.3, 0.75])
@pytest.mark.parametrize("dropout", IMPLEMENTATIONS)
def test_a_share_p_is_zero_and_the_rest_is_scaled_forward_and_backward(dropout, p, dtype):
    torch.manual_seed(0)
    x = (1 + torch.rand(300, 7, 101)).to(dtype).requires_grad_()
    y = dropout(x, p)
    kept = y != 0
    n = x.numel()
    assert abs((~kept).sum() - p * n) < 5 * (n * p * (1 - p)) ** 0.5  # five standard deviations
    wanted = (x[kept].float() / (1 - p)).to(dtype)
    torch.testing.assert_close(y[kept], wanted, rtol=2**-7 if dtype == torch.bfloat16 else 1e-6, atol=0)
    y.backward(torch.ones_like(y))
    assert torch.equal(x.grad != 0, kept)  # the same numbers
    torch.testing.assert_close(x.grad[kept].float().mean(), torch.tensor(1 / (1 - p)), rtol=5e-3, atol=0)


@pytest.mark.parametrize("dropout", IMPLEMENTATIONS)
def test_what_is_dropped_is_independent_of_neighbours_and_of_other_calls(dropout):
    torch.manual_seed(1)
    x, n = torch.ones(1 << 18), 1 << 18
    first, second = ((dropout(x, 0.5) != 0).float() - 0.5 for _ in range(2))
    for shift in (1, 2, 8, 64, 256, 4096):  # places that stand beside each other in a row, a head, a batch
        assert (first[shift:] * first[:-shift]).mean().abs() < 5 * 0.25 / n**0.5, shift
    assert (first * second).mean().abs() < 5 * 0.25 / n**0.5


@pytest.mark.parametrize("dropout", IMPLEMENTATIONS)
def test_the_same_seed_drops_the_same_and_the_generator_moves_on(dropout):
    x = torch.ones(1000)
    torch.manual_seed(3)
    first, next_one = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5), first)
    assert not torch.equal(first, next_one)


@pytest.mark.skipif(native.library() is None, reason="no native kernels here")
def test_threads_and_strides_change_nothing():
    x = torch.randn(512, 300)
    results = []
    for threads, values in ((1, x), (3, x), (2, x.T.contiguous().T)):
        torch.set_num_threads(threads)
        torch.manual_seed(4)
        results.append(kernels.dropout(values, 0.4))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize("dropout", IMPLEMENTATIONS)
def test_a_nan_that_is_kept_stays_one(dropout):
    assert dropout(torch.full((100,), torch.nan), 0.5).isnan().any()
