"""Every implementation of a kernel gives what `reference.py` says, values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmwright.kernels import cross_entropy, fused, native, plain, reference
from llmwright.kernels.attention import native as native_attention
from llmwright.kernels.attention import plain as plain_attention

needs_native = pytest.mark.skipif(native.library() is None, reason=f"no native kernels here: {native.problem()}")
BOTH = [pytest.param("native", marks=needs_native), "torch"]
DTYPES = [torch.float32, torch.bfloat16]


def check(ours, reference, inputs, dtype, slack=1, **keywords):
    """`ours` on `dtype` against `reference` in float32 on the same rounded values: results and all gradients.

    The tolerance is relative to the largest entry: 2e-5 in float32 (sums in another order); in bfloat16 2^-6, four
    units in the last place (intermediate results are rounded to 8 bits once or twice), times `slack`.
    """
    tolerance = 2e-5 if dtype == torch.float32 else 2**-6 * slack
    mine = [x.detach().to(dtype).requires_grad_() for x in inputs]
    theirs = [x.detach().to(dtype).float().requires_grad_() for x in inputs]
    y, expected = ours(*mine, **keywords), reference(*theirs, **keywords)
    assert y.shape == expected.shape
    g = torch.randn(expected.shape).to(y.dtype)
    results = (y, *torch.autograd.grad(y, mine, g))
    wanted = (expected, *torch.autograd.grad(expected, theirs, g.float()))
    with torch.no_grad():
        results += (ours(*mine, **keywords),)  # without gradients: another path, the same values
        wanted += (expected,)
    for result, want in zip(results, wanted):
        difference = (result.float() - want).abs().max()
        assert difference <= tolerance * want.abs().max() + 1e-6, (difference, want.abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", BOTH)
@settings(max_examples=12, deadline=None)
@given(shape=st.lists(st.integers(1, 9), min_size=0, max_size=4), D=st.sampled_from([7, 64, 100, 513, 1100]))
def test_rms_norm_equals_its_definition(how, dtype, shape, D):
    norm = {"native": fused.rms_norm, "torch": plain.rms_norm}[how]
    # (a row of one or two numbers has next to no gradient: nothing but rounding to compare)
    ours, theirs = (lambda x, w, f=f: f(x, w, 1e-5) for f in (norm, reference.rms_norm))
    check(ours, theirs, [torch.randn(*shape, D), torch.randn(D)], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@needs_native
@settings(max_examples=12, deadline=None)
@given(B=st.integers(1, 3), T=st.integers(1, 20), H=st.integers(1, 5), half=st.integers(1, 40), batched=st.booleans())
def test_rotary_equals_its_definition(dtype, B, T, H, half, batched):
    angles = torch.randn(B if batched else 1, T, half)
    check(fused.rotary, reference.rotary, [torch.randn(B, T, H, 2 * half)], dtype, cos=angles.cos(), sin=angles.sin())


@pytest.mark.parametrize("dtype", DTYPES)
@needs_native
@settings(max_examples=12, deadline=None)
@given(shape=st.lists(st.integers(1, 9), min_size=0, max_size=3), F=st.sampled_from([1, 31, 704, 1025]))
def test_swiglu_equals_its_definition(dtype, shape, F):
    check(fused.swiglu, reference.swiglu, [8 * torch.randn(*shape, F), torch.randn(*shape, F)], dtype)


def test_swiglu_saturates_as_it_should():
    gate = torch.tensor([-1e4, -100.0, -30.0, 0.0, 30.0, 100.0, 1e4])
    up = torch.ones(7)
    got = fused.swiglu(gate, up) if native.library() else reference.swiglu(gate, up)
    torch.testing.assert_close(got, torch.tensor([0.0, 0.0, -30 * 9.3576e-14, 0.0, 30.0, 100.0, 1e4]), rtol=1e-4, atol=1e-30)


@needs_native
@pytest.mark.parametrize("dtype", DTYPES)
def test_slices_of_one_projection_need_no_copy_to_be_right(dtype):
    """Query, key and value as views of one (B, T, 3·H·C) product, gate and up of another."""
    angles = torch.randn(1, 33, 16)

    def attend(f, qkv, gate_up):
        q, k, v = qkv.view(2, 33, 3, 4, 32).unbind(2)
        q, k = f.rms_norm(q, torch.linspace(0.5, 2, 32), 1e-6), f.rotary(k, angles.cos(), angles.sin())
        y = f.attention(q, k, v, causal=True)
        gate, up = gate_up.chunk(2, -1)
        return y.flatten(2) + f.swiglu(gate, up)

    from llmwright import kernels

    inputs = [torch.randn(2, 33, 3 * 4 * 32), torch.randn(2, 33, 2 * 4 * 32)]
    check(lambda a, b: attend(kernels, a, b), lambda a, b: attend(reference, a, b), inputs, dtype)


SHAPES = [  # B, T, S, H, K, C
    (1, 1, 1, 1, 1, 16), (2, 1, 75, 6, 2, 64), (3, 37, 37, 4, 2, 64), (2, 64, 64, 2, 2, 32), (1, 130, 130, 2, 1, 128),
    (1, 5, 70, 4, 1, 40), (2, 33, 33, 3, 3, 7), (1, 257, 257, 1, 1, 48), (1, 20, 50, 2, 1, 256),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("how", BOTH)
def test_attention_equals_its_definition(how, shape, dtype):
    B, T, S, H, K, C = shape
    run = {"native": native_attention, "torch": plain_attention}[how]
    inputs = [torch.randn(B, T, H, C), torch.randn(B, S, K, C), torch.randn(B, S, K, C)]
    keys = torch.arange(S) >= torch.arange(B)[:, None]  # left padding, (B, S)
    segments = (torch.rand(B, S) < 0.1).cumsum(-1)
    blocks = segments[:, None, S - T :, None] == segments[:, None, None, :]
    masks = [None, keys[:, None, None, :], blocks, torch.rand(B, H, T, S) < 0.4, torch.rand(T, S) < 0.5]
    for mask in masks:
        for causal in (True, False):
            scale = None if causal else 0.3
            slack = 1 if how == "native" else 3  # PyTorch's products round the scores to bfloat16 before the softmax
            check(run, reference.attention, inputs, dtype, slack, mask=mask, causal=causal, scale=scale)


@needs_native
@settings(max_examples=40, deadline=None)
@given(
    T=st.integers(1, 90), past=st.integers(0, 40), K=st.integers(1, 2), G=st.integers(1, 3), C=st.integers(1, 70),
    density=st.sampled_from([0.0, 0.02, 0.3, 1.0]), causal=st.booleans(), dtype=st.sampled_from(DTYPES),
)
def test_attention_of_any_shape(T, past, K, G, C, density, causal, dtype):
    inputs = [torch.randn(2, T, K * G, C), torch.randn(2, T + past, K, C), torch.randn(2, T + past, K, C)]
    mask = None if density == 1.0 else torch.rand(2, 1, T, T + past) < density
    check(native_attention, reference.attention, inputs, dtype, mask=mask, causal=causal, scale=None)


@pytest.mark.parametrize("how", BOTH)
def test_a_query_that_sees_one_key_copies_its_value_and_moves_no_score(how):
    """The softmax of one number is 1 whatever the number: its gradient is nothing, not a rounding."""
    run = {"native": native_attention, "torch": plain_attention}[how]
    q, k, v = (torch.randn(2, 40, 3, 32).bfloat16().requires_grad_() for _ in range(3))
    y = run(q, k, v, mask=torch.eye(40, dtype=torch.bool), causal=True, scale=None)
    y.backward(torch.randn_like(y))
    assert torch.equal(y, v)
    assert q.grad.abs().max() <= 2e-5 and k.grad.abs().max() <= 2e-5


@pytest.mark.parametrize("how", BOTH)
def test_a_query_that_sees_nothing_gets_zeros_and_harms_no_gradient(how):
    run = {"native": native_attention, "torch": plain_attention}[how]
    q, k, v = (torch.randn(1, 40, 2, 16, requires_grad=True) for _ in range(3))
    mask = torch.rand(1, 1, 40, 40) < 0.5
    mask[:, :, 3:9] = False
    y = run(q, k, v, mask=mask, causal=False, scale=None)
    y.sum().backward()
    assert (y[:, 3:9] == 0).all() and (q.grad[:, 3:9] == 0).all()
    assert all(t.grad.isfinite().all() for t in (q, k, v))


def test_attention_dropout_keeps_the_mean_and_a_float_mask_is_added():
    from llmwright import kernels

    q, k, v = torch.randn(1, 200, 2, 8), torch.randn(1, 200, 2, 8), torch.ones(1, 200, 2, 8)
    y = kernels.attention(q, k, v, dropout=0.5)
    assert y.std() > 0 and abs(y.mean() - 1) < 0.05
    bias = torch.randn(1, 2, 200, 200)
    got, want = (f.attention(q, k, k, mask=bias, causal=True) for f in (kernels, reference))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", BOTH)
@pytest.mark.parametrize("N, D, V", [(1, 8, 3), (700, 33, 131), (200, 24, 20_001)])
def test_linear_cross_entropy_equals_its_definition(how, dtype, N, D, V, monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 1 << 20)  # several chunks, the last one ragged
    targets = torch.randint(0, V, (N,))
    if N > 1:
        targets[::3] = -100
        targets[5] = V - 1

    def ours(h, w, **keywords):
        return cross_entropy.linear_cross_entropy(h, w, use_native=how == "native", **keywords)

    for label_smoothing in (0.0, 0.1):
        check(ours, reference.linear_cross_entropy, [torch.randn(N, D), torch.randn(V, D) / 3], dtype, targets=targets,
              label_smoothing=label_smoothing)
    hidden, weight = torch.randn(N, D).to(dtype), torch.randn(V, D) / 3
    got = cross_entropy.token_losses(hidden, weight, targets, use_native=how == "native")
    want = reference.token_losses(hidden.float(), weight.to(dtype), targets)
    assert (got[targets == -100] == 0).all()
    torch.testing.assert_close(got, want, rtol=1e-4 if dtype == torch.float32 else 2e-2, atol=3e-2)


@pytest.mark.parametrize("how", BOTH)
def test_master_weights_in_float32_get_a_float32_gradient_for_bfloat16_states(how):
    h, w = torch.randn(300, 16).bfloat16().requires_grad_(), torch.randn(50, 16, requires_grad=True)
    loss = cross_entropy.linear_cross_entropy(h, w, torch.randint(0, 50, (300,)), use_native=how == "native")
    (loss / 300).backward()
    assert loss.dtype == torch.float32 and w.grad.dtype == torch.float32 and h.grad.dtype == torch.bfloat16


@needs_native
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_is_never_hidden(dtype):
    """The loop skips a step whose loss is not finite: no kernel may turn a NaN into a number."""
    x = torch.randn(4, 40, 2, 32).to(dtype)
    x[2, 7, 1, 5] = float("nan")
    angles = torch.zeros(1, 40, 16)
    assert fused.rms_norm(x, torch.ones(32), 1e-6)[2, 7, 1].isnan().all()
    assert fused.rotary(x, angles.cos(), angles.sin())[2, 7, 1].isnan().any()
    assert fused.swiglu(x, x)[2, 7, 1, 5].isnan()
    attended = native_attention(x, x, x, mask=None, causal=True, scale=None)
    assert attended[2, 7:, 1].isnan().all() and attended[[0, 1, 3]].isfinite().all()
    hidden = x.reshape(-1, 32)
    losses = cross_entropy.token_losses(hidden, torch.randn(9, 32), torch.zeros(320, dtype=torch.long), use_native=True)
    assert losses.isnan().sum() == 1


@needs_native
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_the_number_of_threads(dtype):
    """Resume on another machine shape, or beside another process, gives the same weights."""

    def everything(threads):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        x = torch.randn(3, 100, 4, 32).to(dtype).requires_grad_()
        w = torch.randn(32).requires_grad_()
        y = fused.rms_norm(x, w, 1e-6)
        y = native_attention(y, y[:, :, :2], y[:, :, 2:], mask=None, causal=True, scale=None)
        y = fused.swiglu(y, x)
        y.sum().backward()
        return y.detach(), x.grad, w.grad

    before = torch.get_num_threads()
    try:
        first, *others = [everything(threads) for threads in (1, 2, 3)]
    finally:
        torch.set_num_threads(before)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other))
