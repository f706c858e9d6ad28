"""The one training loop, read from top to bottom: next batch, loss, backward, clip, step, log, evaluate, save.

It knows no objective by name and no file format; what it trains, on what, comes in a `Job`. Resume is exact: N steps,
a kill, and N more give bit for bit what 2N give, since the weights, the optimizers, the generators, the loader's cursor
and every counter are in the checkpoint.
"""

import dataclasses
import math
import time

import torch

from ..errors import Interrupted, RequestError, WorkError
from . import optimizers as optim, schedule, state as checkpoints
from .board import Board
from .budget import Budget
from .job import Counters, Job, Outcome
from .machine import faster_precision, peak_memory, product_rate, reset_peak_memory
from .masters import Masters
from .signals import stop_on_signals


def train(job: Job) -> Outcome:
    """Train `job` to the end of its budget, or to a stop asked for by Ctrl-C or SIGTERM (saved, then Interrupted).

    Goes on from the newest whole checkpoint of the run, if there is one. Raises WorkError when too many steps in a
    row have a non-finite loss or gradient, or the disk is full: the last good checkpoint stays.
    """
    settings, run, model, loader = job.settings, job.run, job.model, job.loader
    precision, peak_rate = _machine(job)
    masters = Masters(model, getattr(torch, precision))
    optimizers = optim.build(settings.optimizer, masters.weights, set(model.matrices()))
    model.set_activation_checkpointing(settings.activation_checkpointing)
    model.train()
    if settings.compile:
        for block in model.all_blocks:
            block.compile()
    counters = _resume(job, masters, optimizers)
    budget = Budget(settings.steps, settings.max_minutes and settings.max_minutes * 60, settings.epochs)
    board = Board(run.path / "tensorboard" if settings.tensorboard else None)
    reset_peak_memory()
    saved_time, first_step, speed = time.monotonic(), counters.step, _Speed()

    with stop_on_signals() as stop, job.progress.task("training", total=1.0, unit="share") as bar, board:
        bar.resume_at(_progress(budget, counters, loader))
        while (progress := _progress(budget, counters, loader)) < 1 and not _hopeless(settings, counters):
            clock = time.perf_counter()

            context, batch = _size(job, progress)
            loader.resize(context, batch)
            loss_sum, valid, tokens = 0.0, 0, 0
            for _ in range(settings.accumulate):
                data = loader.next_batch(progress)
                tokens += data.n_tokens
                loss, n, _ = job.objective(model, data.to(model.device))
                loss.backward()
                masters.collect()
                loss_sum, valid = loss_sum + loss.item(), valid + n

            loss = loss_sum / max(valid, 1)
            norm = masters.scale_and_clip(1 / max(valid, 1), settings.optimizer.clip)
            rate = schedule.factor(settings.schedule, progress)
            finite = math.isfinite(loss) and math.isfinite(norm)
            if finite:
                optim.set_rate(optimizers, rate)
                for optimizer in optimizers:
                    optimizer.step()
                masters.publish()
            masters.clear()

            counters.step += 1
            counters.tokens += tokens
            took = time.perf_counter() - clock
            counters.seconds += took
            counters.skipped += not finite
            counters.skipped_in_a_row = 0 if finite else counters.skipped_in_a_row + 1
            tokens_per_second = speed.add(tokens, took)
            mfu = job.flops_per_token(context) * tokens_per_second / peak_rate if job.flops_per_token else None
            record = {
                "step": counters.step, "tokens": counters.tokens, "time": round(counters.seconds, 3),
                "loss": loss if finite else None, "lr": rate * settings.optimizer.lr,
                "grad_norm": norm if finite else None, "tokens_per_second": round(tokens_per_second, 1),
                "mfu": mfu and round(mfu, 4), "context": context, "batch": batch, "epoch": round(loader.epoch, 4),
            }
            run.append("metrics.jsonl", record)
            board.add(record)
            bar.advance(
                progress - bar.done, step=f"{counters.step:,}", loss=f"{loss:.3f}", **_shown(counters, mfu),
                **{"tokens/s": f"{tokens_per_second:,.0f}"},
            )

            if counters.skipped_in_a_row >= settings.max_bad_steps:
                path = _save(job, masters, optimizers, counters)
                raise WorkError(
                    f"stopped at step {counters.step}: the loss or its gradient was not finite {settings.max_bad_steps} "
                    f"times in a row; the weights from before are saved in {path}. Lower train.optimizer.lr, or look "
                    "at the data of this step"
                )
            if settings.eval_every and counters.step % settings.eval_every == 0:
                bar.after = _evaluate(job, counters, board)  # the last one ends the training
                if settings.patience and counters.since_best == 0:
                    _save(job, masters, optimizers, counters)
            if settings.sample_every and counters.step % settings.sample_every == 0:
                _sample(job, counters)
            if _save_due(settings, counters, saved_time):
                if counters.evaluated_at != counters.step:
                    _evaluate(job, counters, board, counts=False)
                _save(job, masters, optimizers, counters)
                saved_time = time.monotonic()
            if stop.asked:
                _save(job, masters, optimizers, counters)
                raise Interrupted(
                    f"stopped by {stop.asked} at step {counters.step} and saved; the same command goes on from there"
                )

        if counters.evaluated_at != counters.step:
            _save(job, masters, optimizers, counters)  # the work is safe before the last look at it
            _evaluate(job, counters, board)
            if not settings.sample_every or counters.step % settings.sample_every:
                _sample(job, counters)
        if counters.step > first_step or counters.saved_evaluation_of != counters.step:
            _save(job, masters, optimizers, counters)
    outcome = "early" if _hopeless(settings, counters) else "finished"
    average = counters.tokens / counters.seconds if counters.seconds else 0.0
    return Outcome(outcome, counters, precision, peak_memory(), average)


class _Speed:
    """Tokens a second over the last steps (an exponential mean, about ten steps long)."""

    tokens = seconds = 0.0

    def add(self, tokens: int, seconds: float) -> float:
        self.tokens, self.seconds = 0.9 * self.tokens + tokens, 0.9 * self.seconds + seconds
        return self.tokens / self.seconds


def _hopeless(settings, counters: Counters) -> bool:
    """Whether early stopping has been reached."""
    return bool(settings.patience) and counters.since_best >= settings.patience


def _progress(budget: Budget, counters: Counters, loader) -> float:
    return budget.progress(counters.step, counters.seconds, loader.epoch)


def _size(job: Job, progress: float) -> tuple[int, int]:
    """Tokens a row and rows a micro-batch at this point of the training."""
    context, batch = job.context, job.settings.batch
    for start, c, b in job.settings.growth:
        if progress >= start:
            context, batch = c, b
    return context, batch


def _machine(job: Job) -> tuple[str, float]:
    """The precision to compute in, kept through a run, and this machine's matrix-product rate in it (FLOP/s)."""
    rows, config = job.settings.batch * job.context, job.model.config
    known = job.run.read_json("precision.json") or {}
    precision = job.settings.precision
    if precision == "auto":
        precision = known.get("precision") or faster_precision(config, rows, job.model.device)[0]
    rate = product_rate(1024, 1024, 1024, getattr(torch, precision), job.model.device)
    job.run.write_json("precision.json", {"precision": precision, "product_rate": rate})
    return precision, rate


def _resume(job: Job, masters: Masters, optimizers: list) -> Counters:
    """The counters of the newest whole checkpoint, with all else put back; or new ones."""
    run = job.run
    step = checkpoints.newest_good(run, job.progress.say)
    if step is None and run.steps():
        raise WorkError(
            f"{run.checkpoints}: no checkpoint there is whole; bring one back, or start over with another out=…"
        )
    if step is None:
        for name in ("metrics.jsonl", "samples.jsonl"):
            (run.path / name).unlink(missing_ok=True)
        return Counters()
    saved = checkpoints.restore(run, step, masters, optimizers)
    for key, value in job.fingerprint.items():
        if saved["fingerprint"].get(key) != value:
            raise RequestError(
                f"{run.path}: its {key} changed since step {step} was trained; start another run with out=…, or remove "
                f"{run.checkpoints}"
            )
    job.loader.load_state(saved["loader"])
    for name in ("metrics.jsonl", "samples.jsonl"):
        run.cut_after(name, step)
    job.progress.say(f"going on from step {step}")
    return Counters(**saved["counters"])


def _evaluate(job: Job, counters: Counters, board: Board, counts: bool = True) -> float:
    """Measure on the validation text; the seconds it took. `counts`: whether it tells on early stopping."""
    if job.evaluate is None:
        return 0.0
    clock = time.perf_counter()
    job.model.eval()
    with torch.no_grad():
        result = job.evaluate(job.model)
    job.model.train()
    counters.last_evaluation, counters.evaluated_at = result, counters.step
    record = {"step": counters.step, "tokens": counters.tokens, "time": round(counters.seconds, 3), **result}
    job.run.append("metrics.jsonl", record)
    board.add(record)
    if counts and (counters.best_loss is None or result["val_loss"] < counters.best_loss):
        counters.best_loss, counters.since_best = result["val_loss"], 0
    elif counts:
        counters.since_best += 1
    return time.perf_counter() - clock


def _sample(job: Job, counters: Counters) -> None:
    """Show what the model writes by now. Sampling has its own generator: it does not move the training's."""
    if job.sample is None:
        return
    job.model.eval()
    with torch.no_grad():
        for prompt, text in job.sample(job.model):
            job.run.append("samples.jsonl", {"step": counters.step, "prompt": prompt, "text": text})
    job.model.train()


def _save_due(settings, counters: Counters, saved_time: float) -> bool:
    if settings.save_every:
        return counters.step % settings.save_every == 0
    return time.monotonic() - saved_time >= settings.save_minutes * 60


def _save(job: Job, masters: Masters, optimizers: list, counters: Counters):
    """A checkpoint of this instant, and the retention of older ones. Returns its path. Raises WorkError, and leaves
    the older ones, when a weight is not finite."""
    if not masters.finite():
        steps = job.run.steps()
        kept = f"the last good ones are in {job.run.checkpoint(steps[-1])}" if steps else "there is no earlier checkpoint"
        raise WorkError(
            f"stopped at step {counters.step}: an update made weights that are not finite; {kept}. Lower "
            "train.optimizer.lr and start another run with out=…"
        )
    if counters.evaluated_at == counters.step:
        counters.saved_evaluation_of = counters.step
        loss = counters.last_evaluation["val_loss"]
        if counters.best_saved_loss is None or loss < counters.best_saved_loss:
            counters.best_saved_loss, counters.best_saved_step = loss, counters.step
    state = {
        "counters": dataclasses.asdict(counters), "loader": job.loader.state(), "fingerprint": job.fingerprint,
    }
    path = checkpoints.save(job.run, counters.step, masters, optimizers, state, job.tokenizer)
    job.run.retain(job.settings.keep_last, counters.best_saved_step)
    return path


def _shown(counters: Counters, mfu: float | None) -> dict:
    """What else stands beside the bar."""
    value = {"val": f"{counters.last_evaluation['val_loss']:.3f}"} if counters.last_evaluation else {}
    return value | ({"MFU": f"{mfu:.0%}"} if mfu else {})
