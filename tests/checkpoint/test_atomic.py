"""A save that is killed or fails leaves the old directory, whole."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from llmwright import families
from llmwright.checkpoint import directory
from llmwright.checkpoint.files import new_directory, point, write_file
from llmwright.errors import WorkError
from llmwright.model.build import new

CONFIG = {
    "model_type": "gpt2", "vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 16,
}

SAVE_FOREVER = f"""
import itertools, sys, torch
from llmwright import families
from llmwright.checkpoint import directory
from llmwright.model.build import new
model = new(families.read_config({CONFIG}))
for n in itertools.count(1):
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(n)
    directory.save(model, sys.argv[1])
    if n == 2:
        print("ready", flush=True)
"""


def test_a_kill_at_any_instant_leaves_a_whole_directory(tmp_path):
    path = tmp_path / "m"
    seen = set()
    for attempt in range(4):
        child = subprocess.Popen([sys.executable, "-c", SAVE_FOREVER, path], stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"ready\n"
        # between two saves and in the middle of one
        time.sleep(random.Random(attempt).uniform(0, 0.05))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        values = {p.unique().item() for p in directory.load(path).parameters()}
        assert len(values) == 1  # all weights of one save
        seen |= values
    assert seen


def test_an_error_in_the_middle_leaves_the_old_directory_and_nothing_beside_it(tmp_path):
    path = tmp_path / "m"
    model = new(families.read_config(CONFIG))
    directory.save(model, path)
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    class Tokenizer:
        def save(self, folder):
            (folder / "tokenizer.json").write_text("half")
            raise OSError(28, "No space left on device")

    with torch.no_grad():
        model.norm.weight.add_(1)
    with pytest.raises(WorkError, match="disk is full"):
        directory.save(model, path, tokenizer=Tokenizer())
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("exchange", [True, False])
def test_the_new_directory_takes_the_olds_place(tmp_path, monkeypatch, exchange):
    if not exchange:  # a file system or machine that cannot swap two names
        monkeypatch.setattr("llmwright.checkpoint.files._exchange", lambda one, other: False)
    path = tmp_path / "d"
    for content in ("old", "new"):
        with new_directory(path) as folder:
            (folder / content).write_text(content)
    assert [p.name for p in path.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_link_is_replaced_and_what_it_points_at_stays(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr("llmwright.checkpoint.files._exchange", lambda one, other: False)
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "file").write_text("kept")
    point(tmp_path / "link", "target")
    with new_directory(tmp_path / "link") as folder:
        (folder / "file").write_text("new")
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "link" / "file").read_text() == "new"
    assert (tmp_path / "target" / "file").read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "target"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    write_file(tmp_path / "f", "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WorkError, match="disk is full"):
        write_file(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_link_moves_in_one_step(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        point(tmp_path / "last", name)
        assert os.readlink(tmp_path / "last") == name


def test_others_may_read_what_was_saved(tmp_path):
    directory.save(new(families.read_config(CONFIG)), tmp_path / "m")
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in (tmp_path / "m").iterdir()} == {
        file.name: "0o644" for file in (tmp_path / "m").iterdir()
    }
