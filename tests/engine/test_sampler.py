"""The sampler's distribution is transformers', and its draws follow that distribution."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from transformers.generation import logits_process as theirs

from llmwright.engine.sampler import GREEDY, Sampling, best, inverse, likeliest, probabilities, sample, stages
from llmwright.errors import RequestError, WorkError


def logits(rows: int, vocabulary: int, seed: int) -> torch.Tensor:
    return 3 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


CUTS = dict(
    temperature=st.floats(0.1, 5), top_k=st.integers(0, 60), top_p=st.floats(0.05, 1), min_p=st.floats(0, 1),
    typical=st.floats(0.05, 1),
)


def by_transformers(x, temperature, top_k, top_p, min_p, typical):
    wanted = theirs.TemperatureLogitsWarper(temperature)(None, x)
    if top_k:
        wanted = theirs.TopKLogitsWarper(top_k)(None, wanted)
    if top_p < 1:
        wanted = theirs.TopPLogitsWarper(top_p)(None, wanted)
    if min_p > 0:
        wanted = theirs.MinPLogitsWarper(min_p)(None, wanted)
    if typical < 1:
        wanted = theirs.TypicalLogitsWarper(typical)(None, wanted)
    return wanted.softmax(-1)


@settings(max_examples=200, deadline=None)
@given(**CUTS, seed=st.integers(0, 1000))
def test_the_distribution_is_that_of_transformers(seed, **cuts):
    x = logits(4, 50, seed)
    torch.testing.assert_close(probabilities(x, Sampling(**cuts)), by_transformers(x, **cuts), rtol=1e-4, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(top_p=st.floats(0.05, 1), spread=st.floats(0.1, 6), seed=st.integers(0, 1000))
def test_top_p_of_a_large_vocabulary_is_that_of_transformers_however_far_it_reaches(top_p, spread, seed):
    """Few candidates are sorted at first, and all where these do not suffice."""
    x = spread * torch.randn(3, 2000, generator=torch.Generator().manual_seed(seed))
    wanted = by_transformers(x, 1.0, 0, top_p, 0.0, 1.0)
    ours = probabilities(x, Sampling(top_p=top_p))
    for p, row, theirs_row in zip(x.softmax(-1).double(), ours, wanted):
        differ = ((row > 0) != (theirs_row > 0)).nonzero()[:, 0]
        # the tail's sums round: tokens at the very limit may be on either side of it
        assert all(abs(p[p > p[i]].sum() - top_p) < 1e-4 for i in differ) and p[differ].sum() < 1e-3
        torch.testing.assert_close(row, theirs_row, rtol=1e-3, atol=1e-5 + float(p[differ].sum()))


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.fixed_dictionaries(CUTS), min_size=2, max_size=5), seed=st.integers(0, 1000))
def test_each_row_may_have_settings_of_its_own(rows, seed):
    rows[0] = {"temperature": 0.0}  # greedy among those that draw
    x, chosen = logits(len(rows), 50, seed), [Sampling(**row) for row in rows]

    def generators():
        return [torch.Generator().manual_seed(i) for i in range(len(rows))]

    together = sample(x, chosen, generators())
    for i, (sampling, generator) in enumerate(zip(chosen, generators())):
        assert sample(x[i : i + 1], sampling, [generator]).item() == together[i].item()


def test_the_stages_say_what_each_cut_left():
    """Worked by hand: 0.4 0.3 0.2 0.1; top-k 3, of which top-p 0.7 needs the first two."""
    x = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    found = {name: p[0].tolist() for name, p in stages(x, [Sampling(top_k=3, top_p=0.7)])}
    assert found["temperature"] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert found["top_k"] == pytest.approx([4 / 9, 3 / 9, 2 / 9, 0])
    assert found["top_p"] == pytest.approx([4 / 7, 3 / 7, 0, 0])
    assert list(found) == ["temperature", "top_k", "top_p"]


def test_the_likeliest_are_told_best_first():
    found = likeliest(torch.tensor([[-3.0, -1.0, -2.0], [-1.0, -2.0, -3.0]]), 2)
    assert found == [[(1, -1.0), (2, -2.0)], [(0, -1.0), (1, -2.0)]]
    assert likeliest(torch.zeros(1, 2), 0) == []


def test_draws_follow_the_distribution():
    x = torch.tensor([[2.0, 1.0, 0.0, -1.0, -torch.inf]]).expand(100_000, -1)
    wanted = x[0].softmax(-1)
    counts = torch.bincount(sample(x, Sampling(), torch.Generator().manual_seed(0)), minlength=5)
    error = (wanted * (1 - wanted) / 100_000).sqrt()
    assert ((counts / 100_000 - wanted).abs() <= 4 * error).all()
    assert counts[4] == 0


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), top_k=st.integers(1, 5), temperature=st.sampled_from([1e-30, 0.01, 1.0, 1e6]))
def test_what_is_cut_is_never_drawn(seed, top_k, temperature):
    x = logits(8, 20, seed)
    x[:, ::3] = -torch.inf
    kept = probabilities(x, Sampling(temperature, top_k)) > 0
    ids = sample(x, Sampling(temperature, top_k), torch.Generator().manual_seed(seed))
    assert kept.gather(1, ids[:, None]).all() and (kept.sum(-1) <= top_k).all()
    assert (ids % 3 != 0).all()


def test_greedy_takes_the_first_of_the_most_likely():
    assert sample(torch.tensor([[1.0, 3.0, 3.0], [0.0, -1.0, -torch.inf]]), GREEDY).tolist() == [1, 0]


def test_the_coldest_and_the_narrowest_sampling_are_greedy():
    x = logits(50, 30, 1)
    for sampling in (Sampling(1e-9), Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(min_p=1.0)):
        assert torch.equal(sample(x, sampling, torch.Generator().manual_seed(0)), x.argmax(-1))


@pytest.mark.parametrize("temperature", [1e-300, 1e-50, 1e-38, 9e-6, 1e-5])
def test_a_temperature_next_to_nothing_is_greedy(temperature):
    x = logits(20, 50, 4)
    assert torch.equal(sample(x, Sampling(temperature), torch.Generator().manual_seed(0)), x.argmax(-1))


def test_a_row_with_its_own_generator_does_not_see_its_neighbours():
    x = logits(3, 40, 2)

    def generators(*seeds):
        return [torch.Generator().manual_seed(s) for s in seeds]

    together = sample(x, Sampling(), generators(5, 6, 7))
    assert together[1] == sample(x[1:2], Sampling(), generators(6))[0]


@pytest.mark.parametrize("field, value", [
    ("temperature", -0.1), ("temperature", float("nan")), ("temperature", float("inf")), ("top_k", -1), ("top_k", 1.5),
    ("top_p", 0.0), ("top_p", 1.1), ("top_p", float("nan")), ("min_p", -0.1), ("min_p", 2.0), ("seed", -1),
    ("typical", 0.0), ("typical", 1.5), ("repetition_penalty", 0.0), ("repetition_penalty", -1.0), ("min_tokens", -1),
    ("presence_penalty", float("nan")), ("frequency_penalty", float("inf")), ("top_k", "5"), ("temperature", None),
    ("seed", 1.5), ("min_tokens", True),
])
def test_a_value_out_of_range_is_named(field, value):
    with pytest.raises(RequestError, match=f"{field} "):
        Sampling(**{field: value})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=0)])
def test_logits_that_are_not_finite_are_an_error(bad, sampling):
    x = logits(2, 10, 0)
    x[1, 3] = bad
    with pytest.raises(WorkError, match="not finite"):
        sample(x, sampling)
    with pytest.raises(WorkError):
        sample(torch.full((1, 4), -torch.inf), sampling)


@settings(max_examples=200, deadline=None)
@given(V=st.integers(1, 700), seed=st.integers(0, 999), share=st.floats(0, 1), u=st.floats(0, 1, exclude_max=True))
def test_a_draw_is_the_first_token_whose_cumulative_share_exceeds_the_number(V, seed, share, u):
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(3, V, generator=generator) ** 8
    p[torch.rand(3, V, generator=generator) < share] = 0
    p[:, seed % V] += 1e-3  # a row is never of zeros alone
    p[1] /= p[1].sum()
    found = inverse(p, torch.full((3, 1), u, dtype=torch.float64))
    for row, i in zip(p.double(), found.tolist()):
        cumulative = row.cumsum(0)
        assert row[i] > 0
        assert cumulative[i] >= u * cumulative[-1] * (1 - 1e-12)
        assert cumulative[i] - row[i] <= u * cumulative[-1] * (1 + 1e-12)


def test_the_ends_of_the_distribution_can_be_drawn():
    p = torch.zeros(1, 300)
    p[0, 5], p[0, 299] = 0.5, 0.5
    assert inverse(p, torch.tensor([[0.0]], dtype=torch.float64)).item() == 5
    assert inverse(p, torch.tensor([[1 - 2**-53]], dtype=torch.float64)).item() == 299
    assert best(torch.tensor([[1.0, 3.0, 3.0]])).tolist() == [1]
