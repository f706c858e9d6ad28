"""Peers run in environments of their own, never in ours: made once, under the cache directory."""

import os
import subprocess
import sys
import venv
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "llmwright" / "peers"
TORCH = "torch==2.13.0"


def llama_cpp() -> str:
    """llama.cpp by its Python package, which is built from source: minutes. It needs no torch."""
    return python("llama-cpp", "llama-cpp-python==0.3.36", torch=None)


def langchain() -> str:
    """LangChain's client of OpenAI's API (tests/serve)."""
    return python("langchain", "langchain-openai==1.7.3", torch=None)


def llama_index() -> str:
    """LlamaIndex's (tests/serve)."""
    return python("llama-index", "llama-index-llms-openai==0.8.3", torch=None)


def python(name: str, *packages: str, torch: str | None = TORCH) -> str:
    """The interpreter of the peer `name`'s environment, which has `torch` and `packages`."""
    home = CACHE / name
    interpreter, done = home / "bin" / "python", home / "installed"
    first = [torch, "numpy"] if torch else []
    wanted = "\n".join((*first[:1], *packages))
    if not done.exists() or done.read_text() != wanted:
        print(f"setting up the environment of {name} …", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        for step in (first, list(packages)):
            if step:
                subprocess.run([interpreter, "-m", "pip", "install", "-q", *step], check=True)
        done.write_text(wanted)
    return str(interpreter)


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
    print({"llama-cpp": llama_cpp, "langchain": langchain, "llama-index": llama_index}[sys.argv[1]]())
