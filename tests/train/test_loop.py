"""What the loop promises about losses, gradients and its end."""

import json
import math

import pytest
import torch

from llmwright.errors import WorkError
from llmwright.train.budget import Budget
from llmwright.train.loop import train
from llmwright.train.masters import Masters
from llmwright.train.run import Run

from .tiny import make_data, make_job, make_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("tiny") / "data")


def records(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").open()]


def test_it_learns(data, tmp_path):
    """The next token is a fixed step from the last one: a few hundred steps bring the loss near zero."""
    with Run(tmp_path / "r") as run:
        outcome = train(make_job(data, run, make_recipe(steps=200)))
    assert outcome.state == "finished" and outcome.counters.step == 200
    assert records(run)[0]["loss"] == pytest.approx(math.log(40), abs=0.3)  # a new model knows nothing
    assert outcome.counters.last_evaluation["val_loss"] < 1.0  # most of what is left: each document's first token


def test_accumulation_averages_over_valid_tokens(data, tmp_path):
    """Micro-batches of unequal numbers of targets weigh by their targets: their gradient equals the one of all rows
    in one batch."""
    first = make_recipe(steps=1, batch=8, accumulate=1, optimizer={"clip": 0})
    second = make_recipe(steps=1, batch=2, accumulate=4, optimizer={"clip": 0})
    found = []
    for name, recipe in (("one", first), ("four", second)):
        with Run(tmp_path / name) as run:
            job = make_job(data, run, recipe)
            objective = job.objective
            sizes, seen = [], []

            def uneven(model, batch, objective=objective, sizes=sizes, seen=seen):
                for row in range(len(batch.targets)):  # the first three of the eight rows lose most of their targets
                    if len(seen) < 3:
                        batch.targets[row, 3:] = -100
                    seen.append(row)
                batch.n_targets = int((batch.targets != -100).sum())
                sizes.append(batch.n_targets)
                return objective(model, batch)

            job.objective = uneven
            train(job)
            found.append((records(run)[0], sizes))
    (one, one_size), (four, four_sizes) = found
    assert one_size == [sum(four_sizes)] and four_sizes[0] < four_sizes[-1] / 4
    assert one["loss"] == pytest.approx(four["loss"], rel=1e-6)
    assert one["grad_norm"] == pytest.approx(four["grad_norm"], rel=1e-4)


def test_a_non_finite_step_changes_no_weight_and_is_counted(data, tmp_path):
    with Run(tmp_path / "r") as run:
        job = make_job(data, run, make_recipe(steps=6))
        objective, seen = job.objective, []

        def bad_third(model, batch):
            seen.append({n: p.detach().clone() for n, p in model.named_parameters()})
            loss, n, metrics = objective(model, batch)
            return (loss * float("nan") if len(seen) == 3 else loss), n, metrics

        job.objective = bad_third
        outcome = train(job)
    assert outcome.counters.skipped == 1
    assert all(torch.equal(seen[2][n], seen[3][n]) for n in seen[2])  # the third step left the weights alone
    assert not all(torch.equal(seen[3][n], seen[4][n]) for n in seen[3])
    assert records(run)[2]["loss"] is None


def test_several_bad_steps_in_a_row_stop_with_a_saved_state(data, tmp_path):
    with Run(tmp_path / "r") as run:
        job = make_job(data, run, make_recipe(steps=50, max_bad_steps=3))
        objective, calls = job.objective, []

        def bad_from_fourth(model, batch):
            calls.append(1)
            loss, n, metrics = objective(model, batch)
            return (loss * float("inf") if len(calls) > 3 else loss), n, metrics

        job.objective = bad_from_fourth
        with pytest.raises(WorkError, match="stopped at step 6: .* not finite 3 times in a row"):
            train(job)
        assert run.steps() == [6]


def test_early_stopping_keeps_the_best(data, tmp_path):
    with Run(tmp_path / "r") as run:
        job = make_job(data, run, make_recipe(steps=50, eval_every=2, patience=2))
        values = iter([3.0, 2.0, 2.5, 2.6, 0.1])
        job.evaluate = lambda model: {"val_loss": next(values)}
        outcome = train(job)
        assert outcome.state == "early" and outcome.counters.step == 8
        assert (run.path / "best").resolve().name == "step-4"


def test_a_time_budget_ends_the_training_with_the_schedule_at_its_end(data, tmp_path):
    with Run(tmp_path / "r") as run:
        train(make_job(data, run, make_recipe(steps=None, max_minutes=2 / 60)))
        steps = [r for r in records(run) if "lr" in r]
    assert 1.9 < steps[-1]["time"] < 4
    assert steps[-1]["lr"] < 0.1 * max(r["lr"] for r in steps)


def test_growth_changes_the_rows_at_its_time(data, tmp_path):
    with Run(tmp_path / "r") as run:
        train(make_job(data, run, make_recipe(steps=10, growth=[[0.0, 16, 8], [0.5, 48, 3]])))
        sizes = [(r["context"], r["batch"]) for r in records(run) if "lr" in r]
    assert sizes == [(16, 8)] * 5 + [(48, 3)] * 5


def test_budget_is_the_largest_share():
    assert Budget(steps=100, seconds=60, epochs=2).progress(50, 45, 0.5) == 0.75
    assert Budget(epochs=2).progress(10**9, 10**9, 1.0) == 0.5


def test_clipping_and_scaling_by_hand(data, tmp_path):
    """Two gradients 3 and 4 after scaling: norm 5; clipped to 1 they are 0.6 and 0.8."""
    with Run(tmp_path / "r") as run:
        model = make_job(data, run, make_recipe()).model
    masters = Masters(model, torch.float32)
    masters.clear()
    a, b = list(masters.weights.values())[:2]
    a.grad, b.grad = torch.zeros_like(a), torch.zeros_like(b)
    a.grad.view(-1)[0], b.grad.view(-1)[1] = 30.0, 40.0
    assert masters.scale_and_clip(0.1, clip=1.0) == pytest.approx(5.0)
    assert a.grad.view(-1)[0].item() == pytest.approx(0.6, rel=1e-5)
    assert b.grad.view(-1)[1].item() == pytest.approx(0.8, rel=1e-5)


def test_masters_keep_what_bfloat16_would_lose(data, tmp_path):
    """An update too small for bfloat16 stays in the master and shows once enough of them have come."""
    with Run(tmp_path / "r") as run:
        model = make_job(data, run, make_recipe()).model
    masters = Masters(model, torch.bfloat16)
    name = "blocks.0.attention.query.weight"
    working, master = masters.working[name], masters.weights[name]
    assert working.dtype == torch.bfloat16 and master.dtype == torch.float32
    assert masters.working["embed.weight"].dtype == torch.float32  # its own master
    with torch.no_grad():
        master.fill_(1.0)
        for _ in range(10):
            master += 1e-3
            masters.publish()
    assert working.float().max() > 1.005  # ten steps of 0.001 in bfloat16 itself would have stayed at 1


def test_gradients_accumulate_in_float32(data, tmp_path):
    with Run(tmp_path / "r") as run:
        model = make_job(data, run, make_recipe()).model
    masters = Masters(model, torch.bfloat16)
    name = "blocks.0.attention.query.weight"
    for _ in range(300):
        masters.working[name].grad = torch.ones_like(masters.working[name])
        masters.collect()
    assert masters.weights[name].grad.min() == 300  # bfloat16 sums stop at 256


def test_an_update_that_ruins_the_weights_is_never_saved(data, tmp_path):
    """A huge learning rate makes weights that are not finite: the run stops and says so, older checkpoints stay."""
    with Run(tmp_path / "r") as run:
        train(make_job(data, run, make_recipe(steps=4)))
    with Run(tmp_path / "r") as run:
        job = make_job(data, run, make_recipe(steps=30, optimizer={"lr": 1e30, "muon_lr": 1e30}))
        with pytest.raises(WorkError, match="weights that are not finite; the last good ones are in .*step-4"):
            train(job)
        assert run.steps() == [4]


def test_early_stopping_stays_stopped(data, tmp_path):
    """The same command after an early stop trains no further step."""
    recipe = make_recipe(steps=50, eval_every=2, patience=1)
    for _ in range(2):
        with Run(tmp_path / "r") as run:
            job = make_job(data, run, recipe)
            values = iter([2.0, 3.0, 1.0, 1.0])
            job.evaluate = lambda model: {"val_loss": next(values)}
            outcome = train(job)
        assert outcome.state == "early" and outcome.counters.step == 4


def test_the_work_is_saved_before_the_last_evaluation(data, tmp_path):
    """A kill while the finished model is measured loses nothing."""
    with Run(tmp_path / "r") as run:
        job = make_job(data, run, make_recipe(steps=5, eval_every=0))

        def killed(model):
            assert run.steps() == [5]
            raise KeyboardInterrupt

        job.evaluate = killed
        with pytest.raises(KeyboardInterrupt):
            train(job)
    with Run(tmp_path / "r") as run:  # and the same command measures it after all
        outcome = train(make_job(data, run, make_recipe(steps=5, eval_every=0)))
        assert outcome.counters.step == 5 and "val_loss" in outcome.counters.last_evaluation
        assert json.loads((run.checkpoint(5) / "state" / "state.json").read_text())["counters"]["best_saved_step"] == 5
