"""How fast this machine trains this model, from its parts: a block, the two ends, and the weights' update, timed for
about two seconds and added up.

An assumed share of the peak rate can be off by a factor of three (a small model is bound by overhead, a large vocabulary
by the head); the parts themselves are not, and every block costs the same.
"""

import time
from dataclasses import replace

import torch
from torch import nn

from ..model.config import ModelConfig
from ..model.build import new
from ..model.decoder import Decoder
from ..progress import Progress
from ..recipe import Optimizer, Recipe
from ..train import optimizers as optim
from ..train.machine import faster_precision, pick_device
from ..train.masters import Masters
from ..train.objectives import causal
from .machine import resident, this_machine
from .plan import Measured, make_plan
from .training import Phase, Training, from_recipe


def measure(config: ModelConfig, run: Training, optimizer: Optimizer, device: str = "cpu",
            seconds: float = 2.0) -> Measured:
    """Time `config`'s parts in each phase of `run` with real modules, kernels and optimizers on random tokens.

    A step takes accumulate · (L · block + ends) + L · a block's update + the ends' update, where the ends are embedding,
    last norm, head and loss. `run.precision` must be decided (not "auto").
    """
    dtype = getattr(torch, run.precision)
    ends, one = new(replace(config, n_layers=1)), new(replace(config, n_layers=1))
    ends.blocks = nn.ModuleList()
    made = []
    for model in (ends, one):
        masters = Masters(model.to(device).train(), dtype)
        model.set_activation_checkpointing(run.activation_checkpointing)
        made.append((masters, optim.build(optimizer, masters.weights, set(model.matrices()))))
    budget = seconds / len(run.phases)

    found = []
    for phase in run.phases:
        batch = _batch(config.vocab_size, phase, run.packed, device)
        t_ends = _time(lambda: _pass(ends, batch, made[0][0]), 0.3 * budget, device)
        t_block = _time(_block(one, batch, phase), 0.4 * budget, device)
        _pass(one, batch, made[1][0])  # gradients for the updates below
        t_ends_update = _time(lambda: _update(*made[0]), 0.1 * budget, device)
        t_update = max(0.0, _time(lambda: _update(*made[1]), 0.2 * budget, device) - t_ends_update)
        step = run.accumulate * (config.n_layers * t_block + t_ends) + config.n_layers * t_update + t_ends_update
        found.append(step / (run.accumulate * phase.batch * phase.context))
    del ends, one, made, masters, model, batch
    return Measured(tuple(found), float(resident()))


def plan_run(recipe: Recipe, data, progress: Progress = Progress()) -> dict:
    """The plan of training `recipe` on prepared `data` (a `data.shards.DataDir`) on this machine, as plain data."""
    from ..families.shapes import shape

    if recipe.model.start_from:
        from ..checkpoint.cache import resolve
        from ..checkpoint.directory import load_config

        config = load_config(resolve(recipe.model.start_from))
    else:
        config = shape(recipe.model, data.card["vocab_size"])
    tokens = sum(shard["tokens"] for shard in data.card["splits"]["train"]["shards"])
    progress.say("plan: timing this model's parts on this machine")
    return replace(plan_here(config, recipe, tokens), name=recipe.name).to_dict()


def plan_here(config: ModelConfig, recipe: Recipe, data_tokens: float | None = None, run: Training | None = None):
    """The `Plan` of training `config` by `recipe` on this machine, measured. `run` replaces the recipe's own."""
    here, device = this_machine(), str(pick_device(recipe.train.device))
    run = run or from_recipe(recipe.train, config, data_tokens)
    if run.precision == "auto":
        rows = run.phases[0].batch * run.phases[0].context
        run = replace(run, precision=faster_precision(config, rows, device)[0])
    plan = make_plan(config, run, here)
    if not plan.fits:  # measuring might not fit either
        return plan
    return make_plan(config, run, here, measure(config, run, recipe.train.optimizer, device))


def _batch(vocab_size: int, phase: Phase, packed: bool, device: str):
    """Random tokens; packed rows hold two documents."""
    from ..data.batch import Batch

    B, T = phase.batch, phase.context
    ids = torch.randint(0, vocab_size, (B, T), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(T).expand(B, T).contiguous()
    segments = (positions >= T // 2).int() if packed else None
    return Batch(ids, ids.roll(-1, 1), positions, segments, B * T).to(device)


def _pass(model: Decoder, batch, masters: Masters) -> None:
    """Forward and backward of one micro-batch."""
    loss, _, _ = causal(model, batch)
    loss.backward()
    loss.item()
    masters.collect()


def _block(model: Decoder, batch, phase: Phase):
    """The forward and backward pass of the first block alone, as a function."""
    x = torch.randn(phase.batch, phase.context, model.config.d_model, device=model.device, dtype=model.dtype)
    x.requires_grad_()
    gradient = torch.randn_like(x)
    mask = None if batch.segments is None else batch.segments[:, None, :, None] == batch.segments[:, None, None, :]
    geometry = model.geometries(batch.positions, mask, phase.context, phase.context)[model.windows[0]]

    def run():
        if model.activation_checkpointing:
            from torch.utils.checkpoint import checkpoint

            y = checkpoint(model.blocks[0], x, geometry, use_reentrant=False)
        else:
            y = model.blocks[0](x, geometry)
        y.backward(gradient)

    return run


def _update(masters: Masters, optimizers: list) -> None:
    """What a step does to the weights after its gradients are there."""
    masters.scale_and_clip(1e-3, 1.0)
    for optimizer in optimizers:
        optimizer.step()
    masters.publish()


def _time(run, seconds: float, device: str) -> float:
    """Time of `run` in seconds: the lower quartile over about `seconds` and at least 2 runs (what else the machine does
    only slows it down), after one or two to warm up."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    times: list[float] = []
    start = time.perf_counter()
    run()
    if time.perf_counter() - start < seconds / 2:
        run()
    end = time.perf_counter() + seconds
    while len(times) < 2 or (time.perf_counter() < end and len(times) < 200):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 4]
