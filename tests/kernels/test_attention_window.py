"""Attention with a sliding window or a soft cap is what `reference.attention` says, and a window saves the work it
promises to save."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmwright import kernels
from llmwright.kernels import reference


@settings(max_examples=60, deadline=None)
@given(T=st.integers(1, 40), past=st.integers(0, 30), window=st.integers(1, 50),
       kind=st.sampled_from(["none", "padding", "full", "added"]), softcap=st.sampled_from([None, 2.0]))
def test_a_window_is_the_mask_it_stands_for(T, past, window, kind, softcap):
    S, generator = T + past, torch.Generator().manual_seed(T * 100 + past)
    q, k, v = (torch.randn(2, n, h, 8, generator=generator) for n, h in ((T, 4), (S, 2), (S, 2)))
    mask = None
    if kind == "padding":
        mask = torch.arange(S) >= torch.tensor([0, S // 3])[:, None, None, None]
    elif kind != "none":
        mask = torch.rand(2, 4, T, S, generator=generator) > 0.3
        mask = mask if kind == "full" else torch.randn(mask.shape, generator=generator)
    ours = kernels.attention(q, k, v, mask=mask, causal=True, window=window, softcap=softcap)
    # by hand: every pair of a query and a key asked by itself
    place = torch.arange(T)[:, None] + past
    near = (torch.arange(S) <= place) & (torch.arange(S) > place - window)
    if mask is None:
        by_hand = near[None, None]
    else:
        by_hand = mask & near if mask.dtype == torch.bool else mask.masked_fill(~near, -torch.inf)
    wanted = reference.attention(q, k, v, mask=by_hand, softcap=softcap)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=2e-5)


def test_a_soft_cap_bends_the_scores():
    q, k = torch.tensor([[[[3.0]]]]), torch.tensor([[[[1.0]], [[-2.0]]]])
    v = torch.tensor([[[[1.0]], [[0.0]]]])
    scores = 2 * torch.tanh(torch.tensor([3.0, -6.0]) / 2)
    got = kernels.attention(q, k, v, scale=1.0, softcap=2.0)
    assert got.item() == pytest.approx(scores.softmax(0)[0].item(), abs=1e-6)


def test_a_window_never_looks_at_more_than_two_windows_of_keys(monkeypatch):
    looked = []
    inner = kernels._attention.plain
    monkeypatch.setattr(kernels, "_native", lambda *tensors: False)
    monkeypatch.setattr(
        kernels._attention, "plain", lambda q, k, v, **o: looked.append((q.shape[1], k.shape[1])) or inner(q, k, v, **o)
    )
    q = torch.randn(1, 1000, 1, 4)
    kernels.attention(q, q, q, causal=True, window=100)
    assert sum(t for t, _ in looked) == 1000 and max(s for _, s in looked) <= 199
