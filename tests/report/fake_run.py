"""A run directory like a real one, made in seconds: real text and a real tokenizer, made-up training.

The "embedding table" after training is random directions plus a shared one for tokens of a kind, so that its maps have
something to show; the loss falls as a power law with the noise of batches. Nothing here is measured.
"""

import json
import math
import shutil
import sysconfig
from pathlib import Path

import numpy as np

from llmwright.data.prepare import prepare
from llmwright.recipe import Data, Tokenizer
from llmwright.tokens.load import load

STDLIB = Path(sysconfig.get_paths()["stdlib"])
TEXT = STDLIB / "argparse.py"
FILES = [TEXT, *[f for f in sorted(STDLIB.glob("*.py")) if f.stat().st_size < 30_000][:70]]  # each split gets some


def make_run(run: Path, steps: int = 1500, vocab_size: int = 2048) -> Path:
    run.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    text = _data(run / "data", run / "corpus", vocab_size)
    _tables(run, rng)
    _metrics(run, steps, rng)
    _samples(run, text, steps, rng)
    (run / "recipe.yaml").write_text(RECIPE)
    _write(run / "plan.json", PLAN)
    _write(run / "result.json", RESULT)
    _write(run / "manifest.json", MANIFEST)
    _write(run / "eval.json", EVAL)
    return run


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _data(data: Path, texts: Path, vocab_size: int) -> str:
    """A real data directory, with an exact duplicate, a short file and mojibake to clean; returns one of its texts."""
    texts.mkdir()
    for file in FILES:
        shutil.copyfile(file, texts / file.name)
    shutil.copyfile(TEXT, texts / "again.py")
    (texts / "short.py").write_text("x = 1\n")
    (texts / "latin.py").write_bytes(("# " + "café déjà vu, " * 40).encode("latin-1"))
    prepare(Data(corpus={"stdlib": str(texts)}), Tokenizer(vocab_size=vocab_size), data)
    return TEXT.read_text(encoding="utf-8")


def _tables(run: Path, rng) -> None:
    from safetensors.numpy import save_file

    tokenizer = load(run / "data")
    size, width = tokenizer.vocab_size, 64
    start = rng.normal(0, 0.02, (size, width)).astype(np.float32)
    groups = np.array([len(t) % 7 + 7 * t.startswith(b" ") for t in map(tokenizer.token_bytes, range(size))])
    trained = start * 8 + rng.normal(0, 0.09, (14, width))[groups].astype(np.float32)
    (run / "model").mkdir()
    save_file({"embedding": start}, run / "embeddings-start.safetensors")
    save_file({"model.embed_tokens.weight": trained}, run / "model" / "model.safetensors")


def _metrics(run: Path, steps: int, rng) -> None:
    with (run / "metrics.jsonl").open("w") as out:
        for step in range(1, steps + 1):
            loss = 1.5 + 6.2 * (1 + step / 12) ** -0.42 + rng.normal(0, 0.07)
            warm, decay = min(1, step / 30), min(1, (steps - step) / (0.65 * steps))
            line = {
                "step": step, "tokens": step * 8192, "time": step * 0.155, "loss": round(loss, 5),
                "lr": 3e-3 * warm * decay, "grad_norm": float(np.exp(rng.normal(-0.9, 0.25)) + 3 / step),
                "tokens_per_second": (56_000 if step < 500 else 52_000) + rng.normal(0, 900), "mfu": 0.42 + rng.normal(0, 0.01),
                "context": 256 if step < 500 else 512, "batch": 32 if step < 500 else 16, "epoch": step / steps,
            }
            if step == 700:
                line |= {"loss": None, "grad_norm": None}
            out.write(json.dumps(line) + "\n")
            if step % 100 == 0:
                val = 1.56 + 6.1 * (1 + step / 12) ** -0.42
                out.write(json.dumps({"step": step, "tokens": step * 8192, "time": step * 0.155, "val_loss": val, "val_bpb": val / math.log(2) / 3.4}) + "\n")
        out.write('{"step": 1501, "loss": 2.')  # killed while it wrote


def _samples(run: Path, text: str, steps: int, rng) -> None:
    with (run / "samples.jsonl").open("w") as out:
        for step in range(0, steps + 1, 150):
            for prompt in ("def add_argument(", "class ", "import "):
                at = text.find(prompt) + len(prompt)
                words = list(text[at:at + 260])
                for i in np.flatnonzero(rng.random(len(words)) < (1 - step / steps) ** 2):
                    words[i] = chr(rng.integers(97, 123))
                out.write(json.dumps({"step": step, "prompt": prompt, "text": "".join(words)}) + "\n")
            out.write(json.dumps({"step": step, "prompt": "# ", "text": "<script>window.hacked = true</script>"}) + "\n")


RECIPE = """name: demo
out: null
seed: 1337
data:
  corpus: python:stdlib
  split: hash
  fractions: [0.8, 0.1, 0.1]
tokenizer: {kind: bpe, vocab_size: 2048}
model:
  family: qwen3
  d_model: 256
  n_layers: 6
  context: 512
train:
  max_minutes: 4.0
  prompts: ["def add_argument(", "class "]
eval: {check: python}
"""
PLAN = {
    "parameters": {"embedding": 524_288, "attention": 1_573_632, "feed_forward": 3_145_728, "norms": 3_584,
                   "total": 5_247_232},
    "memory": {"weights": 20_988_928, "gradients": 20_988_928, "optimizer": 31_000_000, "activations": 310_000_000,
               "process": 420_000_000, "total": 802_977_856},
    "flops": 3.9e14, "tokens": 12_288_000, "seconds": 251.0, "device": "this machine", "tokens_per_second": 48_900,
}
RESULT = {
    "seconds": 232.5, "peak_memory": 861_000_000, "tokens": 12_288_000, "steps": 1500, "tokens_per_second": 52_852,
    "stages": {"prepare": 21.4, "plan": 3.1, "train": 232.5, "eval": 14.2}, "final": {"val_loss": 2.356, "val_bpb": 1.0},
}
MANIFEST = {
    "code_version": "0.1.0", "created": "2026-01-02 03:04", "seeds": {"recipe": 1337},
    "machine": {"cpu": "An 8-core laptop", "cores": 2, "memory": 25_769_803_776, "device": "cpu", "python": "3.11.4",
                "torch": "2.13.0"},
    "data_fingerprint": "5f2c0d6b8e41aa07c3",
}
EVAL = {
    "bits_per_byte": 0.9871, "perplexity_per_token": 10.24, "loss": 2.326, "tokens": 812_345, "bytes": 2_760_000,
    "parse_share": 0.62, "parse_share_of_text": 0.84, "check_n": 50, "split": "test",
    "completions": [
        {"prompt": "def mean(values):\n", "text": "    total = 0\n    for value in values:\n        total += value\n"
                                                 "    return total / len(values)\n", "parses": None},
    ],
    "checked": [
        {"prompt": "class Stack:\n", "text": "    def __init__(self):\n        self.items = []\n\n"
                                            "    def push(self, item):\n        self.items.append(item\n", "parses": False},
        {"prompt": "import ", "text": "os\nimport sys\n\n__all__ = ['<b>bold</b>']\n", "parses": True},
    ],
}
