"""Compute-optimal sizes: the published pair, the law's minimum found by search, and inverses that are inverse."""

import pytest
from hypothesis import given, strategies as st

from llmwright.plan import scaling
from llmwright.plan.scaling import BESIROGLU, HOFFMANN


def test_rule_of_twenty_gives_chinchilla():
    assert scaling.tokens_for(70e9) == 1.4e12
    assert scaling.params_for(1.4e12) == 70e9
    params, tokens = scaling.from_compute(6 * 70e9 * 1.4e12)
    assert (params, tokens) == (pytest.approx(70e9), pytest.approx(1.4e12))


def test_loss_by_hand():
    # 1e8^0.34 = 524.807, 1e9^0.28 = 331.131: 1.69 + 406.4/524.807 + 410.7/331.131
    assert HOFFMANN.loss(1e8, 1e9) == pytest.approx(1.69 + 0.774380 + 1.240294, abs=1e-5)


@pytest.mark.parametrize("law", [HOFFMANN, BESIROGLU], ids=lambda law: law.name)
@pytest.mark.parametrize("flops", [1e18, 5.76e23])
def test_closed_form_is_the_minimum_along_the_budget(law, flops):
    params, tokens = law.from_compute(flops)
    assert 6 * params * tokens == pytest.approx(flops)
    # a fine search over sizes finds no lower loss
    losses = {n: law.loss(n, flops / 6 / n) for n in (params * 1.01**i for i in range(-400, 401))}
    assert min(losses, key=losses.get) == pytest.approx(params, rel=1e-9)


def test_refit_agrees_with_the_rule_where_the_first_fit_does_not():
    # Besiroglu et al. 2024, section 4: their fit gives about 20 tokens a parameter at Chinchilla's budget
    params, tokens = BESIROGLU.from_compute(5.76e23)
    assert tokens / params == pytest.approx(20, abs=3)
    params, tokens = HOFFMANN.from_compute(5.76e23)  # Hoffmann et al. 2022, approach 3: about 40B parameters
    assert 30e9 < params < 45e9


@given(st.floats(1e6, 1e13), st.sampled_from([HOFFMANN, BESIROGLU]))
def test_tokens_and_parameters_are_inverse(params, law):
    assert law.params_for(law.tokens_for(params)) == pytest.approx(params)
    flops = 6 * params * law.tokens_for(params)
    assert law.from_compute(flops)[0] == pytest.approx(params)


def test_all_three_ways_round_give_one_answer():
    for by_params in scaling.optima(params=1e9):
        by_tokens = {o.rule: o for o in scaling.optima(tokens=by_params.tokens)}[by_params.rule]
        by_flops = {o.rule: o for o in scaling.optima(flops=by_params.flops)}[by_params.rule]
        for other in (by_tokens, by_flops):
            assert other.params == pytest.approx(1e9)
            assert other.tokens == pytest.approx(by_params.tokens)
