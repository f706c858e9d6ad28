"""Whole plans: time, cost, what fits, and what makes it fit."""

import io
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st
from rich.console import Console

from llmwright import recipe as recipes
from llmwright.errors import RequestError
from llmwright.plan import flops
from llmwright.plan.devices import DEVICES, device
from llmwright.plan.plan import Measured, make_plan
from llmwright.plan.presets import PRESETS, preset
from llmwright.plan.remedies import HEADROOM
from llmwright.plan.shape import Shape
from llmwright.plan.show import show
from llmwright.plan.targets import read
from llmwright.plan.training import Phase, Training, from_recipe, training
from llmwright.recipe import FAMILIES

GPT2 = preset("gpt2")


def test_time_and_cost_by_hand():
    plan = make_plan(GPT2, training(1e9, batch=1, context=1024, precision="bfloat16"), device("h100"))
    # 6·(12·12·768² + 50257·768) + 3·12·4·1024·768 FLOPs a token, at 40 % of 989 TFLOP/s
    a_token = 6 * (84_934_656 + 38_597_376) + 113_246_208
    assert plan.flops_per_token == a_token == 854_438_400
    assert plan.seconds == pytest.approx(1e9 * a_token / (0.4 * 989e12))
    assert plan.seconds == pytest.approx(2159.9, abs=0.1)
    assert plan.cost == pytest.approx(2159.9 / 3600 * 3.0, rel=1e-4)
    assert plan.tokens_per_second == pytest.approx(1e9 / 2159.9, rel=1e-4)
    assert plan.six_n_d == 6 * 124_439_808 * 1e9
    assert plan.petaflops_days == pytest.approx(6 * 124_439_808 * 1e9 / 8.64e19)
    assert plan.steps == pytest.approx(1e9 / 1024)


def test_gpt3_takes_its_published_compute():
    plan = make_plan(preset("gpt3-175b"), training(300e9, context=2048), device("h100"))
    assert plan.six_n_d == pytest.approx(3.14e23, rel=0.002)
    assert plan.petaflops_days == pytest.approx(3640, rel=0.002)


def test_devices_divide_time_and_multiply_price():
    one = make_plan(GPT2, training(1e9), device("a100"))
    eight = make_plan(GPT2, training(1e9, n_devices=8), device("a100"))
    assert eight.seconds == pytest.approx(one.seconds / 8)
    assert eight.cost == pytest.approx(one.cost)


def test_wall_clock_budget_bounds_the_tokens():
    free = make_plan(GPT2, training(1e12), device("h100"))
    bounded = make_plan(GPT2, training(1e12, seconds=60.0), device("h100"))
    assert bounded.seconds == pytest.approx(60)
    assert bounded.tokens == pytest.approx(60 * free.tokens_per_second)
    few = make_plan(GPT2, training(1e6, seconds=1e6), device("h100"))
    assert few.tokens == 1e6 and few.seconds < 1e6


def test_measurement_replaces_assumptions():
    plan = make_plan(GPT2, training(1000.0), device("h100"), measured=Measured((0.25,), 1e9))
    assert plan.tokens_per_second == 4
    assert plan.seconds == 250


def test_checkpointing_costs_time_and_saves_memory():
    without = make_plan(GPT2, training(1e9, batch=8), device("h100"))
    recomputed = make_plan(GPT2, training(1e9, batch=8, activation_checkpointing=True), device("h100"))
    assert recomputed.memory["activations"] < without.memory["activations"] / 5
    assert 1.2 < recomputed.seconds / without.seconds < 4 / 3
    assert recomputed.flops == without.flops  # by MFU's definition


def test_gpt2_fits_a_24gb_card_and_llama_8b_does_not():
    assert make_plan(GPT2, training(1e9, batch=8), device("24gb")).fits
    plan = make_plan(preset("llama-3-8b"), training(1e9, context=8192), device("24gb"))
    assert not plan.fits and any(r.fits for r in plan.remedies)
    assert any("LoRA" in r.change and r.fits for r in plan.remedies)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(PRESETS)), st.sampled_from(sorted(DEVICES)), st.sampled_from([1, 7, 64, 512]),
       st.booleans(), st.sampled_from(["float32", "bfloat16"]))
def test_each_remedy_is_true(name, device_name, batch, checkpointing, precision):
    shape, where = preset(name), device(device_name)
    run = training(1e9, batch, shape.context, activation_checkpointing=checkpointing, precision=precision)
    plan = make_plan(shape, run, where)
    assert plan.fits == (plan.memory_total <= HEADROOM * where.memory)
    if plan.fits:
        assert plan.remedies == ()
    for remedy in plan.remedies:
        if "more memory" not in remedy.change:
            assert remedy.fits == (remedy.bytes <= HEADROOM * where.memory)
            assert remedy.bytes < plan.memory_total


def test_smaller_micro_batch_remedy_is_what_its_plan_says():
    run = training(1e9, batch=512, precision="bfloat16")
    plan = make_plan(GPT2, run, device("24gb"))
    change = next(r for r in plan.remedies if r.change.startswith("micro-batches"))
    batch = int(change.change.split()[2])
    times = -(-512 // batch)
    smaller = make_plan(GPT2, training(1e9, batch=batch, accumulate=times, precision="bfloat16"), device("24gb"))
    assert smaller.fits and smaller.memory_total == pytest.approx(change.bytes)
    larger = training(1e9, batch=batch + 1, accumulate=2, precision="bfloat16")
    assert not make_plan(GPT2, larger, device("24gb")).fits


def test_recipe_with_growing_batches():
    recipe = recipes.parse({
        "model": {"context": 512}, "train": {"steps": 100, "batch": 8, "context": 128, "accumulate": 2,
                                             "growth": [[0.5, 256, 8], [0.75, 512, 16]], "optimizer": {"name": "adamw"}},
    })
    run = from_recipe(recipe.train, GPT2)
    assert run.phases == (Phase(0.5, 128, 8), Phase(0.25, 256, 8), Phase(0.25, 512, 16))
    assert run.steps == 100 and run.spend([1.0, 1.0, 1.0]) == [2 * 50 * 8 * 128, 2 * 25 * 8 * 256, 2 * 25 * 16 * 512]
    assert run.largest == Phase(0.25, 512, 16)
    plan = make_plan(GPT2, run, device("h100"))
    by_hand = 2 * sum(n * b * t * flops.training_flops_per_token(GPT2, t)
                      for n, b, t in ((50, 8, 128), (25, 8, 256), (25, 16, 512)))
    assert plan.flops == pytest.approx(by_hand, rel=1e-6)


def test_recipe_ends_at_the_first_of_steps_epochs_and_minutes():
    def tokens(rate: float, **ends):
        train = recipes.parse({"train": {"batch": 4, "context": 256, **ends}}).train
        spent = from_recipe(train, GPT2, data_tokens=10_000).spend([rate])
        return spent and sum(spent)

    assert tokens(1000.0, epochs=2, max_minutes=5) == 20_000  # 20 seconds
    assert tokens(10.0, epochs=2, max_minutes=5) == 10 * 300
    assert tokens(1000.0, epochs=2, steps=3) == 3 * 4 * 256
    train = recipes.parse({"train": {"epochs": 2}}).train
    assert from_recipe(train, GPT2).spend([1.0]) is None  # nobody knows yet how long the text is


def test_phases_share_what_ends_the_run():
    phases = (Phase(0.5, 128, 8), Phase(0.5, 256, 16))
    assert Training(seconds=100.0, phases=phases).spend([10.0, 20.0]) == [500, 1000]  # half the time each
    assert Training(steps=10, phases=phases).spend([10.0, 20.0]) == [5 * 1024, 5 * 4096]  # half the steps each
    assert Training(tokens=1e6, phases=phases).spend([10.0, 20.0]) == [5e5, 5e5]


def test_plan_is_plain_data_whose_parts_add_up():
    plain = json.loads(json.dumps(make_plan(GPT2, training(1e9), device("h100")).to_dict()))
    for parts in (plain["parameters"], plain["memory"]):
        assert sum(v for k, v in parts.items() if k != "total") == pytest.approx(parts["total"])
    assert plain["device"] == "h100"
    assert plain["seconds"] * plain["tokens_per_second"] == pytest.approx(plain["tokens"])


def test_decoding_is_bound_by_reading_the_weights():
    plan = make_plan(preset("llama-3-8b"), training(1e9, context=8192), device("h100"))
    # 3.35 TB/s over 2 bytes a weight and 1 GiB of cache
    assert plan.inference["16 bit"]["tokens_per_second_at_most"] == pytest.approx(3.35e12 / (16_060_522_496 + 2**30))


@pytest.mark.parametrize("make, said", [
    (lambda: training(1e9, batch=0), "batch is 0"),
    (lambda: training(-1.0), "tokens is -1"),
    (lambda: training(1e9, n_devices=0), "n_devices is 0"),
    (lambda: make_plan(GPT2, training(1e9, context=4096), device("h100")), "context 4096 is beyond the 1024"),
    (lambda: device("h1000"), "h100"),
    (lambda: device("toaster"), "there are this, "),
])
def test_impossible_requests_name_the_value(make, said):
    with pytest.raises(RequestError, match=said):
        make()


def test_this_machine_is_measured():
    here = device("this")
    assert here.measured and here.price is None
    assert 1e9 < here.float32 < 1e16 and 1e8 < here.bandwidth < 1e14
    assert 1e8 < here.base < here.memory
    assert device("this-machine") is here  # once


def test_pairs_count_the_tokens_of_both_sides():
    tiny = Shape("tiny", vocab_size=10, d_model=4, n_layers=2, n_heads=2, n_kv_heads=2, head_dim=2, d_ff=6, context=8,
                 kind="encoder-decoder", n_encoder_layers=1, gated=False)
    run = Training(steps=10, phases=(Phase(1.0, 8, 3, target=2),))
    plan = make_plan(tiny, run, device("h100"))
    assert plan.tokens == 10 * 3 * (8 + 2)
    assert plan.flops_per_token == round(flops.training_flops_per_token(tiny, 8, 2))
    assert any("sources and targets together" in note for note in plan.notes)
    # without a target of its own, one as long as the source
    assert make_plan(tiny, Training(steps=10, phases=(Phase(1.0, 8, 3),)), device("h100")).tokens == 10 * 3 * 16


def test_a_masked_recipe_pays_the_head_for_what_is_masked():
    recipe = recipes.parse({"train": {"steps": 5, "objective": "masked", "masking": {"share": 0.2}}})
    run = from_recipe(recipe.train, GPT2)
    assert run.head_share == 0.2
    all_of_them, some = (make_plan(GPT2, replace(run, head_share=share), device("h100")) for share in (1.0, 0.2))
    difference = all_of_them.flops_per_token - some.flops_per_token
    assert difference == pytest.approx(6 * 0.8 * 50_257 * 768, abs=2)


def test_spans_leave_the_source_most_of_the_text():
    """T5's own numbers: 512 tokens of input go with 114 of target (its code's random_spans_helper)."""
    recipe = recipes.parse({"train": {"steps": 5, "objective": "span"}})
    assert from_recipe(recipe.train, GPT2).phases[0].target == 228
    recipe = recipes.parse({"train": {"steps": 5, "objective": "span", "context": 512}})
    assert from_recipe(recipe.train, GPT2).phases[0].target == 114


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_fits_somewhere_and_says_what_it_takes(family, tmp_path):
    file = tmp_path / "r.yaml"
    objective = {"bert": "masked", "roberta": "masked", "t5": "span", "marian": "seq2seq"}.get(family, "causal")
    data = "data: {pairs: {p: {source: a, target: b}}}\n" if objective == "seq2seq" else ""
    file.write_text(f"{data}model: {{family: {family}, d_model: 64, n_layers: 2}}\n"
                    f"train: {{steps: 10, batch: 4, objective: {objective}}}\n")
    found = read(str(file))
    plan = make_plan(found.shape, found.run, device("cpu-2-cores"))
    assert plan.fits and plan.seconds > 0 and plan.parameters.total > 100_000
    text = io.StringIO()
    show(plan, Console(file=text, width=120))
    assert "It fits" in text.getvalue()
    assert json.loads(json.dumps(plan.to_dict()))["fits"]
