"""A training that is stopped, killed or finds a damaged checkpoint goes on as if nothing had been."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llmwright.errors import Interrupted, RequestError, WorkError
from llmwright.train import state
from llmwright.train.loop import train
from llmwright.train.run import Run

from .tiny import make_data, make_job, make_recipe

SCRIPT = Path(__file__).with_name("train_script.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("tiny") / "data")


def tensors(run: Path, step: int) -> dict:
    """All tensors of a checkpoint: weights, optimizers, generators."""
    folder = run / "checkpoints" / f"step-{step}"
    found = load_file(folder / "model" / "model.safetensors") | load_file(folder / "state" / "tensors.safetensors")
    return {name: tensor.clone() for name, tensor in found.items()}  # load_file maps the files: they may change


def losses(run: Path) -> list:
    return [(r["step"], r.get("loss"), r.get("val_loss")) for r in map(json.loads, (run / "metrics.jsonl").open())]


def assert_same(a: dict, b: dict):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def command(data, run, steps, save_every, precision="float32") -> list[str]:
    return [sys.executable, str(SCRIPT), str(data), str(run), str(steps), str(save_every), precision]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_killed_training_goes_on_bit_for_bit(data, tmp_path, precision):
    """kill -9 at random moments, as often as it takes: weights, optimizers, generators, cursor and log end the same."""
    subprocess.run(command(data, tmp_path / "whole", 60, 7, precision), check=True, capture_output=True)
    rng, kills = random.Random(1), 0
    for _ in range(12):
        process = subprocess.Popen(command(data, tmp_path / "killed", 60, 7, precision), stderr=subprocess.DEVNULL)
        before = _logged(tmp_path / "killed")
        while process.poll() is None and _logged(tmp_path / "killed") < before + 1:
            time.sleep(0.01)  # wait for this process's own first step
        time.sleep(rng.uniform(0, 0.4))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        if kills >= 3:
            break
    assert kills >= 1, "the training ended before it could be killed"
    subprocess.run(command(data, tmp_path / "killed", 60, 7, precision), check=True, capture_output=True)
    assert_same(tensors(tmp_path / "whole", 60), tensors(tmp_path / "killed", 60))
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")
    whole, killed = (json.loads((tmp_path / r / "checkpoints/step-60/state/state.json").read_text()) for r in ("whole", "killed"))
    assert whole["loader"] == killed["loader"]


def _logged(run: Path) -> float:
    """Something that grows when a step is logged."""
    file = run / "metrics.jsonl"
    return file.stat().st_mtime if file.exists() else 0.0


def test_more_steps_after_a_stop_equal_one_go(data, tmp_path):
    """A stop asked for by a signal saves at the next step; going on ends where an unstopped run ends."""
    with Run(tmp_path / "whole") as run:
        train(make_job(data, run, make_recipe()))
    with Run(tmp_path / "stopped") as run:
        job = make_job(data, run, make_recipe())
        objective, calls = job.objective, []

        def stop_at_five(model, batch):
            calls.append(1)
            if len(calls) == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return objective(model, batch)

        job.objective = stop_at_five
        with pytest.raises(Interrupted, match="SIGTERM at step 5 and saved"):
            train(job)
        assert run.steps() == [5]
    with Run(tmp_path / "stopped") as run:
        train(make_job(data, run, make_recipe()))
    assert_same(tensors(tmp_path / "whole", 12), tensors(tmp_path / "stopped", 12))


def test_a_damaged_checkpoint_is_passed_over_and_said(data, tmp_path):
    with Run(tmp_path / "r") as run:
        train(make_job(data, run, make_recipe(save_every=4)))
        good = tensors(tmp_path / "r", 12)
        weights = run.checkpoint(12) / "model" / "model.safetensors"
        raw = bytearray(weights.read_bytes())
        raw[-5] ^= 1
        weights.write_bytes(raw)
    said = []
    with Run(tmp_path / "r") as run:
        job = make_job(data, run, make_recipe(save_every=4))
        job.progress.say = said.append
        train(job)
    assert any("step-12 is damaged (model/model.safetensors has changed)" in line for line in said)
    assert any("going on from step 8" in line for line in said)
    assert_same(tensors(tmp_path / "r", 12), good)


def test_a_half_written_checkpoint_is_never_seen(data, tmp_path, monkeypatch):
    """Whatever file write fails, the checkpoints there are whole, and nothing of the failed one stays."""
    with Run(tmp_path / "r") as run:
        job = make_job(data, run, make_recipe(save_every=4))
        real = state.save_file

        def full(tensors, path, **kwargs):
            if "step-8" in str(path):
                raise OSError(28, "No space left on device")
            return real(tensors, path, **kwargs)

        monkeypatch.setattr(state, "save_file", full)
        with pytest.raises(WorkError, match="disk is full"):
            train(job)
        assert run.steps() == [4] and state.damage(run.checkpoint(4)) is None
        assert [p.name for p in run.checkpoints.iterdir()] == ["step-4"]


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/proc/mounts"), reason="mounting a small disk takes root")
def test_a_really_full_disk_keeps_the_last_good_checkpoint(data, tmp_path):
    small = tmp_path / "disk"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("mount is not permitted here")
    try:
        done = subprocess.run(command(data, small / "r", 60, 2), capture_output=True, text=True)
        assert done.returncode != 0 and "the disk is full" in done.stderr
        run = Run(small / "r")
        assert run.steps() and all(state.damage(run.checkpoint(step)) is None for step in run.steps())
        assert not list(run.checkpoints.glob(".*"))
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_run_in_use_is_refused_with_the_holder(data, tmp_path):
    with Run(tmp_path / "r"):
        with pytest.raises(RequestError, match=f"in use by process {os.getpid()}"):
            Run(tmp_path / "r").open()
    Run(tmp_path / "r").open().close()


def test_data_that_changed_under_a_run_is_refused(data, tmp_path):
    with Run(tmp_path / "r") as run:
        train(make_job(data, run, make_recipe()))
    with Run(tmp_path / "r") as run:
        job = make_job(data, run, make_recipe(steps=20))
        job.fingerprint = {"data": "another"}
        with pytest.raises(RequestError, match="its data changed since step 12"):
            train(job)


def test_another_shape_is_refused(data, tmp_path):
    with Run(tmp_path / "r") as run:
        train(make_job(data, run, make_recipe()))
    recipe = make_recipe(steps=20)
    wider = recipe.model_copy(update={"model": recipe.model.model_copy(update={"d_model": 64})})
    with Run(tmp_path / "r") as run:
        with pytest.raises(RequestError, match="another model shape"):
            train(make_job(data, run, wider))


def test_the_last_and_the_best_are_kept(data, tmp_path):
    """keep_last newest checkpoints and the one with the lowest validation loss; `model` points at the best."""
    with Run(tmp_path / "r") as run:
        recipe = make_recipe(steps=20, save_every=4, keep_last=2)
        job = make_job(data, run, recipe)
        values = iter([5.0, 1.0, 4.0, 4.0, 4.0, 4.0])
        job.evaluate = lambda model: {"val_loss": next(values)}
        train(job)
        assert run.steps() == [8, 16, 20]
        assert (run.path / "best").resolve().name == "step-8" and (run.path / "last").resolve().name == "step-20"
        assert (run.path / "model").resolve() == run.checkpoint(8) / "model"


def test_a_run_without_a_whole_checkpoint_is_not_thrown_away(data, tmp_path):
    with Run(tmp_path / "r") as run:
        train(make_job(data, run, make_recipe()))
        (run.checkpoint(12) / "checksums.json").write_text("{}")
        log = (run.path / "metrics.jsonl").read_text()
    with Run(tmp_path / "r") as run:
        with pytest.raises(WorkError, match="no checkpoint there is whole"):
            train(make_job(data, run, make_recipe()))
        assert (run.path / "metrics.jsonl").read_text() == log


@pytest.mark.parametrize("name", ["foo", "meta", "cuda:99"])
def test_a_device_that_is_not_here_is_one_line(name):
    from llmwright.train.machine import pick_device

    with pytest.raises(RequestError, match=f"device '{name}' is not available here; available: auto, cpu"):
        pick_device(name)
