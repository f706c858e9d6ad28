"""On this machine the plan is measured, and lands near what training then takes."""

from dataclasses import replace

import pytest

from llmwright import recipe as recipes
from llmwright.model.config import Attention, FeedForward, ModelConfig, Rotary
from llmwright.families.shapes import shape
from llmwright.plan.measure import measure, plan_here
from llmwright.plan.show import brief
from llmwright.plan.training import Training, Phase, from_recipe
from llmwright.recipe import Model

CONFIG = ModelConfig("qwen3", 512, 64, 3, 64, Attention(2, 2, 32, qk_norm=True), FeedForward(192), Rotary(),
                     tie_embeddings=True)
RECIPE = recipes.parse({"train": {"steps": 20, "batch": 8, "context": 64, "precision": "float32"}})


@pytest.mark.slow  # needs a machine that does nothing else
def test_deeper_models_take_longer_by_their_depth():
    run = from_recipe(RECIPE.train, CONFIG)
    shallow, deep = (measure(replace(CONFIG, n_layers=n), run, RECIPE.train.optimizer, seconds=0.4).seconds_per_token[0]
                     for n in (1, 40))
    assert 4 < deep / shallow < 45  # between the ends' share of one layer and 40 times


def test_every_phase_is_measured():
    run = Training(steps=10, phases=(Phase(0.5, 32, 2), Phase(0.5, 64, 8)), precision="float32", optimizer="muon")
    found = measure(CONFIG, run, RECIPE.train.optimizer, seconds=0.2)
    assert len(found.seconds_per_token) == 2 and min(found.seconds_per_token) > 0
    assert found.base > 5e7


@pytest.mark.parametrize("family, objective", [
    ("mixtral", "causal"), ("gemma3", "causal"), ("bloom", "causal"), ("bert", "masked"), ("t5", "span"),
    ("marian", "seq2seq"),
])
def test_every_kind_of_model_is_measured(family, objective):
    config = shape(Model(family=family, d_model=32, n_layers=7, n_encoder_layers=2 if family == "t5" else None, n_heads=2,
                         context=32, dropout=0.1), 100, {"pad": 0})
    pairs = {"batch_tokens": 128} if objective == "seq2seq" else {}
    train = recipes.Train(steps=3, batch=4, objective=objective, precision="float32", **pairs)
    run = from_recipe(train, config)
    assert run.phases[0].target == {"span": 7, "seq2seq": 32}.get(objective)
    assert measure(config, run, train.optimizer, seconds=0.05).seconds_per_token[0] > 0


def test_plan_in_a_few_lines():
    plan = plan_here(CONFIG, RECIPE)
    assert plan.measured and plan.precision == "float32"
    text = brief(plan.to_dict())
    assert "20 steps" in text and "tokens/s" in text and len(text.splitlines()) == 3


@pytest.mark.slow  # needs a machine that does nothing else
def test_plan_lands_near_the_real_run(tmp_path):
    """Within 30 % in time and 15 % in memory."""
    import torch

    from llmwright.data.batch import Batch
    from llmwright.model.build import new
    from llmwright.train.job import Job
    from llmwright.train.loop import train
    from llmwright.train.objectives import causal
    from llmwright.train.run import Run

    config = replace(CONFIG, vocab_size=4096, d_model=256, n_layers=4, attention=Attention(4, 4, 64, qk_norm=True),
                     feed_forward=FeedForward(704), context=512)
    recipe = recipes.parse({"train": {"steps": 20, "batch": 16, "context": 512, "eval_every": 0, "tensorboard": False}})

    class Random:
        epoch = 0.0

        def next_batch(self, progress):
            ids = torch.randint(0, 4096, (16, 512))
            positions = torch.arange(512).expand(16, 512).contiguous()
            return Batch(ids, ids.roll(-1, 1), positions, (positions >= 256).int(), ids.numel())

        def resize(self, context, batch):
            pass

        def state(self):
            return {}

    plan = plan_here(config, recipe)
    with Run(tmp_path / "run") as run:
        result = train(Job(run, new(config), Random(), causal, recipe.train, 512))
    assert plan.seconds == pytest.approx(result.counters.seconds, rel=0.3)
    assert plan.memory_total == pytest.approx(result.peak_memory, rel=0.15)
