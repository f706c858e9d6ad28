"""What the pages of docs/positions/ say of each scheme, held against the code."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

from llmwright.model.config import ALiBi, Relative, RopeScaling, Rotary
from llmwright.model.positions import (
    ALiBiPositions, RelativePositions, RotaryPositions, RoundedALiBiPositions, SinusoidalPositions,
)
from llmwright.model.rope_scaling import frequencies

PAGES = Path(__file__).parents[2] / "docs" / "positions"
PLACES = st.integers(0, 3000)


def turned(x, place: int, scheme: Rotary = Rotary()):
    geometry = RotaryPositions(scheme, x.shape[-1]).geometry(torch.tensor([[place]]))
    return geometry.turn(x[None, None, None], x[None, None, None])[0].flatten()


@settings(max_examples=30, deadline=None)
@given(m=PLACES, n=PLACES, shift=PLACES, seed=st.integers(0, 99))
def test_a_rotary_score_depends_on_the_distance_alone_and_turning_keeps_lengths(m, n, shift, seed):
    q, k = torch.randn(2, 32, generator=torch.Generator().manual_seed(seed))
    score = turned(q, m) @ turned(k, n)
    assert torch.isclose(turned(q, m + shift) @ turned(k, n + shift), score, atol=2e-2)  # float32 angles of thousands
    assert torch.isclose(turned(q, m).norm(), q.norm(), rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(m=PLACES, n=PLACES, k=st.integers(0, 500))
def test_a_product_of_sinusoids_depends_on_the_distance_alone_and_a_shift_is_one_turn_of_each_pair(m, n, k):
    scheme = SinusoidalPositions(16)
    at = {p: scheme.embed(torch.zeros(1, 1, 16), torch.tensor([[p]]))[0, 0] for p in {m, n, m + k, n + k}}
    assert torch.isclose(at[m] @ at[n], at[m + k] @ at[n + k], atol=1e-2)
    by_hand = sum(math.cos((m - n) * 10_000 ** (-i / 8)) for i in range(8))
    assert (at[m] @ at[n]).item() == pytest.approx(by_hand, abs=1e-2)
    sin, cos = at[m].chunk(2)
    step = k * scheme.frequencies
    shifted = torch.cat((step.cos() * sin + step.sin() * cos, step.cos() * cos - step.sin() * sin))
    torch.testing.assert_close(at[m + k], shifted, rtol=0, atol=2e-3)


@pytest.mark.parametrize("n_heads", [1, 4, 6, 8, 12])
def test_alibis_weights_are_geometric_and_the_same_with_absolute_places(n_heads):
    scheme = ALiBiPositions(ALiBi(), n_heads)
    weights = scheme.bias(torch.tensor([[19]]), 20, True).softmax(-1)[0, :, 0]  # (H, keys)
    ratios = weights[:, :-1] / weights[:, 1:]
    torch.testing.assert_close(ratios, (-scheme.slopes)[:, None].exp().expand_as(ratios), rtol=1e-4, atol=0)
    absolute = (scheme.slopes[:, None] * torch.arange(20)).softmax(-1)
    torch.testing.assert_close(absolute, weights, rtol=1e-4, atol=1e-7)
    near = RoundedALiBiPositions(ALiBi(scale=0.5, rounded=True), 8).bias(torch.tensor([[19]]), 20, True)
    exact = ALiBiPositions(ALiBi(scale=0.5), 8).bias(torch.tensor([[19]]), 20, True)
    torch.testing.assert_close(near.softmax(-1), exact.softmax(-1), rtol=1e-5, atol=0)  # slopes that bfloat16 has


@settings(max_examples=60, deadline=None)
@given(distance=st.integers(0, 100_000), buckets=st.sampled_from([8, 32, 64]), furthest=st.sampled_from([40, 128, 500]))
def test_a_bucket_is_the_one_of_the_formula(distance, buckets, furthest):
    scheme, half = RelativePositions(Relative(buckets, furthest), 1), buckets // 2
    by_hand = distance
    if distance >= half:
        by_hand = half + math.log(distance / half) / math.log(furthest / half) * (buckets - half)
        if abs(by_hand - round(by_hand)) < 1e-4:
            return  # on the edge of a bucket rounding decides
        by_hand = min(buckets - 1, math.floor(by_hand))
    assert scheme.buckets(torch.tensor([-distance]), True).item() == by_hand


DIM, THETA, LONG = 64, 10_000.0, 2048
PLAIN = frequencies(Rotary(THETA), DIM)[0]


def scaled(kind: str, factor: float = 4.0, length: int = 0, **change):
    return frequencies(Rotary(THETA, scaling=RopeScaling(kind, factor, LONG, **change)), DIM, length)


def test_linear_scaling_is_division_of_the_position():
    torch.testing.assert_close(scaled("linear")[0], PLAIN / 4)
    x = torch.randn(DIM, generator=torch.Generator().manual_seed(0))
    scheme = Rotary(THETA, scaling=RopeScaling("linear", 4.0, LONG))
    torch.testing.assert_close(turned(x, 400, scheme), turned(x, 100), rtol=0, atol=1e-4)


def test_ntk_aware_scaling_slows_the_slowest_pair_by_the_factor_and_leaves_the_fastest():
    ratio = scaled("ntk")[0] / PLAIN
    assert ratio[0] == 1 and ratio[-1].item() == pytest.approx(1 / 4, rel=1e-4)
    assert (ratio[1:] < ratio[:-1]).all()


def test_dynamic_scaling_changes_nothing_up_to_the_trained_length():
    for length in (0, 1, LONG):
        assert torch.equal(scaled("dynamic", 3.0, length)[0], PLAIN)
    # then it is NTK-aware by what is needed
    torch.testing.assert_close(scaled("dynamic", 1.0, 4 * LONG)[0], scaled("ntk", 4.0)[0])


@pytest.mark.parametrize("kind", ["yarn", "llama3"])
def test_yarn_and_llama_3_leave_pairs_that_turn_often_and_divide_those_that_turn_seldom(kind):
    made, sharpen = scaled(kind)
    turns, ratio = LONG * PLAIN / (2 * math.pi), made / PLAIN
    often, seldom = (32, 1) if kind == "yarn" else (4, 1)
    # YaRN's ramp ends at whole channels: one pair of leeway
    assert torch.equal(ratio[turns > often * 1.4], torch.ones_like(ratio[turns > often * 1.4]))
    slow = ratio[turns < seldom / 1.4]
    torch.testing.assert_close(slow, torch.full_like(slow, 1 / 4))
    between = ratio[(turns < often / 1.4) & (turns > seldom * 1.4)]
    assert len(between) and ((between < 1) & (between > 1 / 4)).all()
    assert sharpen == pytest.approx(0.1 * math.log(4) + 1 if kind == "yarn" else 1.0)
    assert scaled(kind, 1.0)[1] == 1.0


def test_yarn_sharpens_the_scores_by_its_square():
    scheme = Rotary(THETA, scaling=RopeScaling("yarn", 4.0, LONG))
    x = torch.randn(DIM, generator=torch.Generator().manual_seed(0))
    unsharpened = replace(scheme, scaling=replace(scheme.scaling, attention_factor=1.0))
    sharpened = turned(x, 7, scheme) @ turned(x, 3, scheme)
    assert (sharpened / (turned(x, 7, unsharpened) @ turned(x, 3, unsharpened))).item() == pytest.approx(
        (0.1 * math.log(4) + 1) ** 2, rel=1e-4)


def test_every_picture_and_file_that_a_page_names_is_there():
    for page in PAGES.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            assert (PAGES / target).exists(), f"{page.name}: {target}"
    assert len(list(PAGES.glob("*.md"))) >= 6
