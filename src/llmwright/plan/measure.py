"""How fast this machine trains this model, from its parts: a block, the two ends, and the weights' update, timed for
about two seconds and added up.

An assumed share of the peak rate can be off by a factor of three (a small model is bound by overhead, a large vocabulary
by the head); the parts themselves are not, and layers of a kind cost the same.
"""

import time
from dataclasses import replace

import torch
from torch import nn

from ..model.config import ModelConfig
from ..model.build import new
from ..model.cache import Memory
from ..model.transformer import Transformer
from ..progress import Progress
from ..recipe import Optimizer, Recipe
from ..train import optimizers as optim
from ..train.machine import faster_precision, pick_device
from ..train.masters import Masters
from ..train.objectives import causal, masked, seq2seq
from .machine import resident, this_machine
from .parameters import parameters
from .plan import Measured, make_plan
from .training import Phase, Training, from_recipe

_OBJECTIVES = {"decoder": causal, "encoder": masked, "encoder-decoder": seq2seq}


def measure(config: ModelConfig, run: Training, optimizer: Optimizer, device: str = "cpu",
            seconds: float = 2.0) -> Measured:
    """Time `config`'s parts in each phase of `run` with real modules, kernels and optimizers on random tokens.

    A step takes accumulate · (Σ layers · block + ends) + the blocks' updates + the ends' update, where the ends are
    embedding, last norm, head and loss, and the sum is over the kinds of layers: of each width of window, and of encoder
    and decoder. `run.precision` must be decided (not "auto").
    """
    dtype, kinds = getattr(torch, run.precision), tuple(dict.fromkeys(config.windows))
    ends = new(replace(config, n_layers=1, n_encoder_layers=min(1, config.n_encoder_layers), windows=()))
    for stack in ends.stacks:
        stack.blocks = nn.ModuleList()
    each = new(replace(config, n_layers=len(kinds) or 1, n_encoder_layers=min(1, config.n_encoder_layers), windows=kinds))
    made = []
    for model in (ends, each):
        masters = Masters(model.to(device).train(), dtype)
        model.set_activation_checkpointing(run.activation_checkpointing)
        made.append((masters, optim.build(optimizer, masters.weights, set(model.matrices()))))
    budget = seconds / len(run.phases)
    depth = parameters(config).block_matrices / parameters(each.config).block_matrices

    found = []
    for phase in run.phases:
        batch = _batch(config, phase, run, device)
        t_ends = _time(lambda: _pass(ends, batch, made[0][0]), 0.3 * budget, device)
        blocks = list(_blocks(each, config, batch, phase))
        t_blocks = sum(n * _time(block, 0.4 * budget / len(blocks), device) for n, block in blocks)
        _pass(each, batch, made[1][0])  # gradients for the updates below
        t_ends_update = _time(lambda: _update(*made[0]), 0.1 * budget, device)
        t_update = max(0.0, _time(lambda: _update(*made[1]), 0.2 * budget, device) - t_ends_update)
        step = run.accumulate * (t_blocks + t_ends) + depth * t_update + t_ends_update
        found.append(step / (run.accumulate * phase.tokens))
    del ends, each, made, masters, model, batch, blocks
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
        rows = run.phases[0].tokens
        run = replace(run, precision=faster_precision(config, rows, device)[0])
    plan = make_plan(config, run, here)
    if not plan.fits:  # measuring might not fit either
        return plan
    return make_plan(config, run, here, measure(config, plan.run, recipe.train.optimizer, device))


def _batch(config: ModelConfig, phase: Phase, run: Training, device: str):
    """Random tokens; packed rows hold two documents."""
    from ..data.batch import Batch, PairBatch

    generator = torch.Generator().manual_seed(0)

    def random(width: int):
        return torch.randint(0, config.vocab_size, (phase.batch, width), generator=generator)

    T = phase.context
    if config.kind == "encoder-decoder":
        target = random(phase.target)
        return PairBatch(random(T), None, target, target.roll(-1, 1), target.numel()).to(device)
    ids = random(T)
    positions = torch.arange(T).expand(phase.batch, T).contiguous()
    segments = (positions >= T // 2).int() if run.packed else None
    targets = ids.roll(-1, 1)
    targets[torch.rand(targets.shape, generator=generator) >= run.head_share] = -100
    return Batch(ids, targets, positions, segments, int((targets >= 0).sum())).to(device)


def _pass(model: Transformer, batch, masters: Masters) -> None:
    """Forward and backward of one micro-batch."""
    loss, _, _ = _OBJECTIVES[model.config.kind](model, batch)
    loss.backward()
    loss.item()
    masters.collect()


def _blocks(model: Transformer, config: ModelConfig, batch, phase: Phase):
    """The forward and backward pass of each kind of layer alone, as a function, and how many layers of `config` are of
    this kind. `model` has one of each."""

    def states(length: int):
        x = torch.randn(phase.batch, length, config.d_model, device=model.device, dtype=model.dtype)
        return x.requires_grad_()

    segments = getattr(batch, "segments", None)
    mask = None if segments is None else segments[:, None, :, None] == segments[:, None, None, :]
    for stack in model.stacks:
        encoding = stack.causal is False
        length = phase.context if encoding or not phase.target else phase.target
        memory = Memory(states(phase.context)) if config.kind == "encoder-decoder" and not encoding else None
        places = torch.arange(length, device=model.device)[None]
        with torch.no_grad():  # all layers share it
            seen = stack.geometries(getattr(batch, "positions", places), mask, length)
        for block, window in zip(stack.blocks, stack.windows):
            many = config.windows.count(window) if config.windows else config.n_layers
            many = config.n_encoder_layers if memory is None and config.n_encoder_layers else many
            x = states(length)
            yield many, _both_ways(block, x, torch.randn_like(x), seen[window], memory, model.stacks[0])


def _both_ways(block, x, gradient, geometry, memory, stack):
    def run():
        if stack.activation_checkpointing:
            from torch.utils.checkpoint import checkpoint

            y = checkpoint(block, x, geometry, None, memory, use_reentrant=False)
        else:
            y = block(x, geometry, None, memory)
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
