"""Layer norm of a sum: every implementation gives what the definition says, values and gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_operations import BOTH, DTYPES, check, needs_native

from llmwright import kernels
from llmwright.kernels import layer_norm as operation
from llmwright.kernels import plain, reference
from llmwright.kernels.layer_norm import layer_norm as native


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", BOTH)
@settings(max_examples=20, deadline=None)
@given(shape=st.lists(st.integers(1, 9), max_size=3), D=st.sampled_from([7, 64, 100, 513]), summed=st.booleans(),
       biased=st.booleans())
def test_it_equals_its_definition(how, dtype, shape, D, summed, biased):
    run = {"native": native, "torch": plain.layer_norm}[how]

    def of(f):
        def norm(x, weight, *rest):
            rest = list(rest)
            bias = rest.pop() if biased else None
            return f(x, weight, bias, 1e-5, rest.pop() if summed else None)
        return norm

    inputs = [torch.randn(*shape, D), torch.randn(D)]
    inputs += [torch.randn(*shape, D)] * summed + [torch.randn(D)] * biased
    # PyTorch's operators sum the gradients of weight and bias in bfloat16 itself
    check(of(run), of(reference.layer_norm), inputs, dtype, slack=8 if how == "torch" else 1)


@needs_native
@pytest.mark.parametrize("dtype", DTYPES)
def test_slices_need_no_copy_to_be_right(dtype):
    def run(f, wide, weight):
        return f(wide[..., 32:64], weight, None, 1e-6, wide[..., :32].transpose(0, 1))

    inputs = [torch.randn(5, 5, 96), torch.randn(32)]
    check(lambda *t: run(native, *t), lambda *t: run(reference.layer_norm, *t), inputs, dtype)


@needs_native
def test_the_definition_is_pytorchs_and_the_bits_do_not_depend_on_threads():
    x, added, weight, bias = torch.randn(700, 96), torch.randn(700, 96), torch.randn(96), torch.randn(96)
    wanted = F.layer_norm((x + added).double(), (96,), weight.double(), bias.double(), 1e-12).float()
    torch.testing.assert_close(reference.layer_norm(x, weight, bias, 1e-12, added), wanted, rtol=0, atol=1e-5)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        inputs = [t.clone().requires_grad_() for t in (x, added, weight, bias)]
        y = kernels.layer_norm(inputs[0], inputs[2], inputs[3], 1e-12, inputs[1])
        found.append((y, *torch.autograd.grad(y.square().sum(), inputs)))
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(*found))


@needs_native
def test_a_weight_that_is_frozen_or_alone_trained_gets_its_gradient():
    x, weight, bias = torch.randn(40, 16), torch.randn(16).requires_grad_(), torch.zeros(16)
    operation(x, weight, bias, 1e-5).sum().backward()
    wanted = weight.detach().requires_grad_()
    reference.layer_norm(x, wanted, bias, 1e-5).sum().backward()
    torch.testing.assert_close(weight.grad, wanted.grad, rtol=0, atol=1e-4)


@needs_native
def test_a_row_that_is_not_a_number_stays_that_and_spoils_no_other():
    x = torch.randn(3, 16)
    x[1, 4] = float("nan")
    y = native(x, torch.ones(16), None, 1e-5, None)
    assert y[1].isnan().all() and y[[0, 2]].isfinite().all()
