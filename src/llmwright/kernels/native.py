"""The C++ kernels of `cpu/`: compiled at first use for this very processor, kept in a cache, called through ctypes.

The code has no header of PyTorch, so a compiler needs a few seconds, once for each machine. OpenMP is compiled in but
not linked: its symbols resolve to the runtime that PyTorch has loaded, so both share one pool of threads. Where there
is no compiler, or anything else is missing, `library()` is None and `problem()` says why; nothing fails.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

SOURCE = Path(__file__).parent / "cpu"
FLAGS = (
    "-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp", "-fvisibility=hidden",
    "-fno-math-errno", "-fno-trapping-math",  # what is safe of -ffast-math: infinities and NaN keep their meaning
)
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}

# p pointer, l long, f float, i int
SIGNATURES = {
    "rms_norm_forward": "pplpfppi", "rms_norm_backward": "pppplppppli",
    "rotary": "pplpplfpi", "swiglu_forward": "plplllpi", "swiglu_backward": "plplplllppi",
    "layer_norm_forward": "plplllppfppppi", "layer_norm_backward": "plplllppppppli",
    "linear_int8": "plllpppplipi", "vnni": "p",
    "linear_quantized": "plllpplipi", "linear_steady": "plllpplpi",
    "paged_attention": "plpppl" "pplllll" "flfplpi",
    "dropout": "pllfpi", "cross_entropy": "plllplpii", "attention_forward": "pppppp", "attention_backward": "ppppppppp",
}
_TYPES = {"p": ctypes.c_void_p, "l": ctypes.c_long, "f": ctypes.c_float, "i": ctypes.c_int}
_problem: list[str] = []


def problem() -> str | None:
    """Why `library()` is None, in one line."""
    library()
    return _problem[0] if _problem else None


@functools.cache
def library() -> dict | None:
    """The kernels as {(name, dtype): function}, or None where they cannot be had."""
    try:
        lib = _load()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        _problem.append(" ".join(str(error).split()) or type(error).__name__)
        return None
    functions = {}
    for name, signature in SIGNATURES.items():
        for dtype, suffix in DTYPES.items():
            function = lib[f"{name}_{suffix}"]
            function.argtypes, function.restype = [_TYPES[letter] for letter in signature], None
            functions[name, dtype] = function
    functions["library"], functions["tape"] = lib, lib.tape_run
    lib.tape_run.argtypes, lib.tape_run.restype = [ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p], None
    return functions


def function(name: str, dtype: torch.dtype):
    """A kernel, to be called with the addresses of tensors: for calls whose every microsecond counts."""
    return library()[name, dtype]


def on_tape(name: str, dtype: torch.dtype, what: ctypes.Structure, to: ctypes.Structure) -> None:
    """Make `to` the operation `name` with the fields of `what` (`tape.py`)."""
    library()["library"][f"tape_{name}_{DTYPES[dtype]}"](ctypes.byref(what), ctypes.byref(to))


def run_tape(operations: ctypes.Array, count: int, step: ctypes.Structure) -> None:
    library()["tape"](operations, count, ctypes.byref(step))


def rows(x: torch.Tensor, K: int) -> tuple[torch.Tensor, int]:
    """`x` (..., K) as rows that a kernel can take, each contiguous, and how far they are apart: a copy only where the
    strides ask for one."""
    if x.shape[-1] != K:
        raise ValueError(f"rows of {x.shape[-1]} numbers for a layer of {K} inputs")
    if x.is_contiguous():
        return x, K
    x = x.reshape(-1, K)
    return (x, x.stride(0)) if x.stride(1) == 1 or K == 1 else (x.contiguous(), K)


def call(name: str, dtype: torch.dtype, *arguments) -> None:
    """Run a kernel; tensors are passed as their addresses. Whoever calls keeps them alive and in the right layout."""
    library()[name, dtype](*[a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments])


@functools.cache
def vnni() -> bool:
    """Whether the kernels of few bits work here: they need AVX-512 VNNI, and that the kernels could be built."""
    if library() is None:
        return False
    found = torch.zeros(1, dtype=torch.int32)
    call("vnni", torch.float32, found)
    return bool(found)


def _load() -> ctypes.CDLL:
    if sys.platform != "linux":
        raise RuntimeError(f"the native kernels are built on Linux only, and this is {sys.platform}")
    if not hasattr(ctypes.CDLL(None), "GOMP_parallel"):
        raise RuntimeError("this PyTorch does not share a GNU OpenMP runtime")
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), "g++", "c++"))), None)
    directory = _cache_directory() / _fingerprint()
    path = directory / "kernels.so"
    if path.exists():
        try:
            return ctypes.CDLL(str(path))
        except OSError:  # damaged, or from a machine that was not this one after all: build it again
            pass
    if compiler is None:
        raise RuntimeError("no C++ compiler (g++) was found")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as aside:
        built = _compile(compiler, Path(aside))
        library = ctypes.CDLL(str(built))  # before others can see it: an unresolved symbol fails here
        os.replace(built, path)  # several processes may race; each puts a whole file there
    return library


def _compile(compiler: str, aside: Path) -> Path:
    sources = sorted(SOURCE.glob("*.cpp"))
    objects = [aside / f"{source.stem}.o" for source in sources]
    jobs = [
        subprocess.Popen(
            [compiler, *FLAGS, "-c", str(source), "-o", str(target)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for source, target in zip(sources, objects)
    ]
    try:
        errors = [job.communicate(timeout=180)[1] for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    for job, error in zip(jobs, errors):
        if job.returncode:
            raise RuntimeError(f"{compiler} failed: {error[:300]}")
    built = aside / "kernels.so"
    subprocess.run(
        [compiler, "-shared", "-o", str(built), *map(str, objects)],
        check=True, timeout=180, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    return built


def _fingerprint() -> str:
    """Names what a build depends on: the source, the flags, the processor."""
    digest = hashlib.sha256(" ".join((*FLAGS, platform.machine(), os.environ.get("CXX", ""))).encode())
    for source in sorted(SOURCE.iterdir()):
        digest.update(source.read_bytes())
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = [platform.processor()]
    keep = ("model", "cpu family", "flags", "Features", "CPU ")
    digest.update("\n".join(line for line in lines if line.startswith(keep) and "MHz" not in line).encode())
    return digest.hexdigest()[:16]


def _cache_directory() -> Path:
    """The user's cache, or a directory in the temporary one that only this user can write."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    directory = Path(home) / "llmwright" / "kernels"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if os.access(directory, os.W_OK | os.X_OK):
            return directory
    except OSError:
        pass
    directory = Path(tempfile.gettempdir()) / f"llmwright-kernels-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    owner = directory.stat()
    if directory.is_symlink() or owner.st_uid != os.getuid() or owner.st_mode & 0o022:
        raise RuntimeError(f"{directory} is not this user's own, and {home} cannot be written")
    return directory
