"""Which implementation runs: built at first use, never in the way, as told by the environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llmwright import kernels
from llmwright.errors import RequestError
from llmwright.kernels import native

needs_native = pytest.mark.skipif(native.library() is None, reason=f"no native kernels here: {native.problem()}")

SCRIPT = """
import torch
from llmwright import kernels
x = torch.randn(2, 9, 4, 16, requires_grad=True)
y = kernels.attention(kernels.rms_norm(x, torch.ones(16), 1e-6), x, x, causal=True)
(kernels.linear_cross_entropy(y.flatten(0, 1).flatten(1), torch.randn(50, 64), torch.zeros(18).long())).backward()
assert x.grad.isfinite().all()
print(kernels.using()["attention"], kernels.native.problem() if kernels.using()["attention"] == "torch" else "")
"""


def using(**environment):
    """What a new process says that it uses, having used it."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**os.environ, **environment}, capture_output=True, text=True, timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.fixture
def choosing(monkeypatch):
    """Sets the environment's choice for one test."""

    def choose(name):
        monkeypatch.setenv("LLMWRIGHT_KERNELS", name)
        kernels._choose.cache_clear()

    yield choose
    kernels._choose.cache_clear()


@pytest.mark.parametrize("mode", ["reference", "torch", pytest.param("native", marks=needs_native)])
def test_the_environment_forces_an_implementation(mode, choosing, monkeypatch):
    called = []
    kernels.native.vnni()  # ask the kernels once and remember: before they are replaced
    monkeypatch.setattr(native, "call", lambda name, *_: called.append(name))
    monkeypatch.setattr(kernels.fused, "call", native.call)
    choosing(mode)
    kernels.swiglu(torch.ones(2, 3), torch.ones(2, 3))
    used = kernels.using()
    assert used.pop("linear_int8") == ("native" if mode == "native" and kernels.native.vnni() else "reference")
    assert used.pop("linear_quantized") == (
        mode if mode != "native" or kernels.native.vnni() else "torch")
    assert set(used.values()) == {mode}
    assert called == (["swiglu_forward"] if mode == "native" else [])
    assert kernels.using("cuda")["attention"] == ("reference" if mode == "reference" else "torch")


def test_an_unknown_choice_is_refused_by_name(choosing):
    choosing("fast")
    with pytest.raises(RequestError, match="LLMWRIGHT_KERNELS=fast: it must be reference, torch or native"):
        kernels.using()


def test_without_a_compiler_pytorch_serves(tmp_path):
    said = using(PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "cache"), CXX="")
    assert said == "torch no C++ compiler (g++) was found"


def test_a_compiler_that_fails_is_survived_and_said(tmp_path):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'unknown target' >&2\nexit 1\n")
    broken.chmod(0o755)
    said = using(PATH=f"{tmp_path}:{os.environ['PATH']}", XDG_CACHE_HOME=str(tmp_path / "cache"), CXX="")
    assert said.startswith("torch") and "unknown target" in said


@needs_native
def test_built_once_rebuilt_when_damaged_and_kept_where_one_can_write(tmp_path):
    places = {"XDG_CACHE_HOME": "/proc/none", "TMPDIR": str(tmp_path)}  # no home: a private temporary directory
    assert using(**places) == "native"
    (library,) = tmp_path.rglob("*.so")
    assert library.parents[1].stat().st_mode & 0o777 == 0o700
    built = library.stat().st_mtime_ns
    assert using(**places) == "native"
    assert library.stat().st_mtime_ns == built
    library.write_bytes(b"no library")
    assert using(**places) == "native"
    assert library.stat().st_size > 1000
    assert [path.name for path in library.parent.iterdir()] == ["kernels.so"]


@needs_native
@pytest.mark.slow
def test_processes_that_start_together_all_get_the_kernels(tmp_path):
    jobs = [
        subprocess.Popen([sys.executable, "-c", SCRIPT], env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
                         stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [job.communicate(timeout=280)[0].strip() for job in jobs] == ["native"] * 3


@needs_native
def test_threads_are_those_of_pytorch():
    """One OpenMP runtime in the process: the kernels brought no second one."""
    kernels.native.library()
    built = native._cache_directory() / native._fingerprint() / "kernels.so"
    assert "kernels.so" in Path("/proc/self/maps").read_text()
    needed = subprocess.run(["ldd", built], capture_output=True, text=True, check=True).stdout
    assert "gomp" not in needed and "libomp" not in needed


@needs_native
def test_memory_of_attention_and_loss_does_not_grow_with_their_matrices():
    """The T × S weights would be 268 MB in float32, the logits 537 MB in bfloat16."""
    script = """
import resource, torch
from llmwright import kernels
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
q, k, v = (torch.randn(2, 2048, 8, 16).bfloat16().requires_grad_() for _ in range(3))
h, w = torch.randn(16384, 16).bfloat16().requires_grad_(), torch.randn(16384, 16).requires_grad_()
warm = kernels.linear_cross_entropy(h[:64], w, torch.zeros(64).long()); warm.backward()
kernels.attention(q[:, :64], k[:, :64], v[:, :64], causal=True).sum().backward()
before = peak()
kernels.attention(q, k, v, causal=True).sum().backward()
print(peak() - before)
before = peak()
kernels.linear_cross_entropy(h, w, torch.zeros(16384).long()).backward()
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    attention, loss = map(float, done.stdout.split())
    assert attention < 60 and loss < 60, (attention, loss)


def test_a_tracing_compiler_sees_one_graph():
    def block(x, w):
        y = kernels.rms_norm(x, w, 1e-6)
        return kernels.swiglu(kernels.attention(y, y, y, causal=True), y)

    x, w = torch.randn(1, 7, 2, 8), torch.ones(8)
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, w), block(x, w), rtol=1e-4, atol=1e-5)


def test_empty_and_odd_tensors_pass():
    assert kernels.rms_norm(torch.empty(0, 8), torch.ones(8), 1e-6).shape == (0, 8)
    assert kernels.linear_cross_entropy(torch.empty(0, 8), torch.randn(5, 8), torch.empty(0).long()) == 0
    assert kernels.token_losses(torch.empty(0, 8), torch.randn(5, 8), torch.empty(0).long()).shape == (0,)
    meta = torch.empty(2, 3, 4, 8, device="meta")
    assert kernels.attention(meta, meta, meta, causal=True).shape == meta.shape
    half = torch.randn(2, 8, dtype=torch.float64)
    torch.testing.assert_close(kernels.swiglu(half, half), torch.nn.functional.silu(half) * half)
