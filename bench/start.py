"""From a cold process to the first token, and the memory that a loaded model takes.

    python bench/start.py [MODEL] [--rounds 5]

MODEL (default: smollm2-135m-instruct, from `llmwright pull`) as it was published, a GGUF file, and as a model directory
that `llmwright export --to safetensors` writes. Each run is a process of its own: `llmwright generate MODEL "The capital
of France is" --greedy --max-tokens 1`, from the start of Python to its end, the file in the system's cache. Beside them,
in turn: Python with PyTorch alone, `import torch`, which no program that uses it can do without. Memory: the most that
the process held, less what Python and PyTorch hold alone, as a share of the weights (float32).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import machine

PROMPT = "The capital of France is"


def run(*arguments: str) -> tuple[float, int]:
    """(seconds, bytes at the peak) of one process."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)}: failed")
    return time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    from llmwright.cli.describe import describe

    weights = 4 * describe(asked.model)["parameters"]  # nothing is loaded here: a child begins with its parent's memory
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "safetensors"
        subprocess.run([sys.executable, "-m", "llmwright", "export", asked.model, "--to", "safetensors", "-o", directory],
                       check=True, stdout=subprocess.DEVNULL)
        jobs = {
            "import torch": ("-c", "import torch"),
            "as published": ("-m", "llmwright", "generate", asked.model, PROMPT, "--greedy", "--max-tokens", "1"),
            "safetensors": ("-m", "llmwright", "generate", str(directory), PROMPT, "--greedy", "--max-tokens", "1"),
        }
        found = {name: [] for name in jobs}
        for _ in range(asked.rounds):
            for name, job in jobs.items():
                found[name].append(run(*job))
    print(machine())
    print("| | seconds, median | lowest, highest | memory beyond PyTorch / weights |\n|---|---|---|---|")
    alone = min(peak for _, peak in found["import torch"])
    for name, runs in found.items():
        seconds = [s for s, _ in runs]
        share = "" if name == "import torch" else f"{(max(peak for _, peak in runs) - alone) / weights:.2f}"
        print(f"| {name} | {statistics.median(seconds):.2f} | {min(seconds):.2f}, {max(seconds):.2f} | {share} |")


if __name__ == "__main__":
    main()
