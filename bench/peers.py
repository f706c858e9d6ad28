"""Peers run in environments of their own, never in ours: made once, under the cache directory."""

import os
import subprocess
import sys
import venv
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "llmwright" / "peers"
TORCH = "torch==2.13.0"


def python(name: str, *packages: str) -> str:
    """The interpreter of the peer `name`'s environment, which has torch and `packages`."""
    home = CACHE / name
    interpreter, done = home / "bin" / "python", home / "installed"
    wanted = "\n".join((TORCH, *packages))
    if not done.exists() or done.read_text() != wanted:
        print(f"setting up the environment of {name} …", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        for step in ([TORCH, "numpy"], list(packages)):
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
