"""Pretraining speed and memory: llmwright against transformers, the same model, batch and work, in turn.

    python bench/pretrain.py [--rounds 3] [--steps 30]

A 14M-parameter Llama (6 layers, 384 wide, 6 heads, feed-forward 1024, vocabulary 8192, tied), 16 rows of 256 tokens, AdamW
on float32 weights with clipping. transformers trains it under bf16 autocast, the usual way, in an environment of its own;
also in pure bf16, which is faster and loses small updates, for scale. We train it with `llmwright.train.loop`, float32
masters and optimizer state, loader, log and all. Each run is a process; tokens/s is the median step after a warm-up;
memory is the process's peak. Ratios are of medians over the rounds; the spread is the lowest and highest ratio of a round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BATCH, CONTEXT, VOCABULARY = 16, 256, 8192


def theirs(precision: str, steps: int) -> dict:
    """Runs in the peer's environment."""
    import time

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=384, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=6,
        num_key_value_heads=6, max_position_embeddings=CONTEXT, tie_word_embeddings=True, use_cache=False,
    ))
    if precision == "bf16":
        model = model.bfloat16()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    times = []
    for step in range(steps):
        ids = torch.randint(0, VOCABULARY, (BATCH, CONTEXT))
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        times.append(time.perf_counter() - start)
    return {"tokens_per_second": BATCH * CONTEXT / statistics.median(times[5:]), "memory": peak()}


def ours(steps: int) -> dict:
    import numpy as np

    from llmwright import kernels, recipe as recipes
    from llmwright.data.rows import RowLoader
    from llmwright.data.shards import DataDir, ShardWriter
    from llmwright.families.shapes import shape
    from llmwright.model.build import new
    from llmwright.train.job import Job
    from llmwright.train.loop import train
    from llmwright.train.machine import reset_peak_memory
    from llmwright.train.objectives import causal
    from llmwright.train.run import Run

    recipe = recipes.parse({
        "model": {"family": "llama", "d_model": 384, "n_layers": 6, "n_heads": 6, "d_ff": 1024, "context": CONTEXT},
        "train": {"steps": steps, "batch": BATCH, "eval_every": 0, "save_minutes": 1000, "tensorboard": False,
                  "precision": "bfloat16", "optimizer": {"name": "adamw", "lr": 1e-3}},
    })
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        (data / "train").mkdir(parents=True)
        writer = ShardWriter(data / "train", "random", VOCABULARY, 10**9)
        random = np.random.default_rng(0)
        n = BATCH * CONTEXT * (steps + 1)
        writer.add(random.integers(1, VOCABULARY, n).astype(np.uint16), n)
        card = {"vocab_size": VOCABULARY, "bos_id": 0, "splits": {"train": {"shards": writer.close()}}}
        (data / "data.json").write_text(json.dumps(card))
        split = DataDir.open(data).split("train")
        reset_peak_memory()
        with Run(Path(folder) / "run") as run:
            loader = RowLoader(split, CONTEXT, BATCH, 0)
            model = new(shape(recipe.model, VOCABULARY))
            job = Job(run, model, loader, causal, recipe.train, CONTEXT)
            train(job)
            records = [json.loads(line) for line in (run.path / "metrics.jsonl").open()]
    clocks = [r["time"] for r in records]
    times = [after - before for before, after in zip(clocks[4:], clocks[5:])]
    rate = BATCH * CONTEXT / statistics.median(times)
    return {"tokens_per_second": rate, "memory": peak(), "kernels": kernels.using()["attention"]}


def peak() -> int:
    """Bytes: the most this process has held."""
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this measurement reads /proc/self/status, which this system does not have")


def run(interpreter: str, who: str, steps: int) -> dict:
    command = [interpreter, __file__, "--only", who, "--steps", str(steps)]
    # safe path: this folder's files are not to be taken for the peer's own modules
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{who} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--only", help="one measurement, in this process: ours, autocast, bf16")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(ours(options.steps) if options.only == "ours" else theirs(options.only, options.steps)))
        return
    from peers import machine, python

    peer = python("transformers", "transformers==5.23.0")
    found: dict[str, list[dict]] = {"autocast": [], "bf16": [], "ours": []}
    for _ in range(options.rounds):
        for who in found:
            found[who].append(run(sys.executable if who == "ours" else peer, who, options.steps))
    print(f"{machine()}; {options.rounds} rounds of {options.steps} steps")
    median = {who: {k: statistics.median(r[k] for r in rows) for k in ("tokens_per_second", "memory")}
              for who, rows in found.items()}
    for who, m in median.items():
        print(f"  {who:9} {m['tokens_per_second']:7,.0f} tokens/s   peak memory {m['memory'] / 2**20:6,.0f} MiB")
    for who in ("autocast", "bf16"):
        ratios = [o["tokens_per_second"] / t["tokens_per_second"] for o, t in zip(found["ours"], found[who])]
        ratio = median["ours"]["tokens_per_second"] / median[who]["tokens_per_second"]
        memory = median["ours"]["memory"] / median[who]["memory"]
        print(f"  ours / transformers {who}: {ratio:.2f} times the tokens/s ({min(ratios):.2f}–{max(ratios):.2f}), "
              f"{memory:.2f} times the memory")


if __name__ == "__main__":
    main()
