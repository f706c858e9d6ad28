"""The threads of a tape do each item once, whoever takes it, and nobody is in the way of anybody."""

import os
import subprocess
import sys
import threading

import pytest
import torch

from llmwright import kernels
from llmwright.kernels import native

pytestmark = pytest.mark.skipif(native.library() is None, reason="no native kernels here")


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return torch.randn(700, 600), torch.randn(40, 600)


@pytest.fixture(autouse=True)
def one_thread_again():
    yield
    torch.set_num_threads(1)


def test_any_number_of_threads_gives_the_same_bits(layer):
    weight, x = layer
    with torch.no_grad():
        torch.set_num_threads(1)
        alone = kernels.linear_steady(x, weight)
        for threads in (2, 5, 3, 1, 4) * 20:
            torch.set_num_threads(threads)
            assert torch.equal(kernels.linear_steady(x, weight), alone)


def test_callers_at_the_same_time_each_get_their_own(layer):
    weight, x = layer
    with torch.no_grad():
        wanted = [kernels.linear_steady(x[i:], weight) for i in range(4)]
    wrong = []

    def call(i: int) -> None:
        torch.set_num_threads(3)
        with torch.no_grad():
            for _ in range(50):
                if not torch.equal(kernels.linear_steady(x[i:], weight), wanted[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


FORK = """
import os, sys, torch
from llmwright import kernels
torch.set_num_threads(2)
weight, x = torch.randn(700, 600), torch.randn(40, 600)
with torch.no_grad():
    wanted = kernels.linear_steady(x, weight)
    if not os.fork():  # the threads of the parent are not here
        same = all(torch.equal(kernels.linear_steady(x, weight), wanted) for _ in range(20))
        os._exit(0 if same else 1)
    assert os.wait()[1] == 0 and torch.equal(kernels.linear_steady(x, weight), wanted)
"""


def test_a_forked_process_has_threads_of_its_own():
    done = subprocess.run([sys.executable, "-c", FORK], timeout=60, env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert done.returncode == 0
