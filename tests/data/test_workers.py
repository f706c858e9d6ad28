"""Worker processes: results in order, few tasks ahead, errors as they were raised, a death named."""

import os
import subprocess
import sys

import numpy as np
import pytest

from llmwright.data.workers import Workers
from llmwright.errors import RequestError, WorkError


def double(task):
    return task * 2


def refuse(task):
    raise RequestError(f"no {task}")


def fail(task):
    return task["missing"]


def die(task):
    os._exit(3)


def chatter(task):
    print("a stray line", flush=True)
    return os.getpid()


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_results_come_in_order_and_the_stream_is_not_read_ahead(n):
    taken, seen = [], []

    def tasks():
        for i in range(20):
            taken.append(i)
            yield np.full(i * 10_000, i)

    with Workers(n) as workers:
        for task, result in workers.map("test_workers:double", tasks()):
            assert (result == task * 2).all() and len(result) == len(task)
            seen.append(len(task) // 10_000)
            assert len(taken) - len(seen) <= n + 2
    assert seen == list(range(20))


def test_errors_keep_their_kind_and_the_workers_go_on():
    with Workers(1) as workers:
        with pytest.raises(RequestError, match="no 7"):
            list(workers.map("test_workers:refuse", [7]))
        with pytest.raises(RuntimeError, match="in a worker process(.|\n)*fail"):
            list(workers.map("test_workers:fail", [7]))
        (_, pid), (_, same) = workers.map("test_workers:chatter", [1, 2])
        assert pid == same != os.getpid()


def test_a_worker_that_dies_is_said_and_none_is_left():
    with pytest.raises(WorkError, match="a worker process ended .exit code 3."), Workers(2) as workers:
        list(workers.map("test_workers:die", range(5)))
    assert all(process.poll() is not None for process in workers._processes)


def test_a_script_without_a_main_guard_works(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from llmwright.data.workers import Workers\n"
                      "with Workers(2) as w: print([r for _, r in w.map('operator:neg', range(3))])\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[0, -1, -2]\n", done.stderr


def test_workers_start_without_torch():
    code = ("import sys, llmwright.data.work, llmwright.tokens.load; "
            "print([m for m in ('torch', 'pyarrow', 'transformers', 'sklearn') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
