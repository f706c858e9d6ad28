"""What `--deterministic` costs, and how often texts differ without it: greedy texts of SmolLM2-135M-Instruct.

    python bench/deterministic.py [--prompts 64] [--tokens 64]

Each prompt is continued alone, and with 31 others at a time whose texts are read in pieces beside it, in an engine with and
without the flag, for each kind of weights. A text differs if any of its tokens does. Tokens/s are of 32 texts at a time,
the median of three rounds in turn; the first reading of a prompt of 512 tokens is timed too.
"""

import argparse
import random
import statistics
import time

from llmwright import spin

spin.little()  # before PyTorch is loaded

import torch  # noqa: E402
from peers import machine  # noqa: E402

from llmwright.engine.language_model import load  # noqa: E402
from llmwright.engine.llm import LLM  # noqa: E402

MODEL, TOGETHER = "smollm2-135m-instruct", 32
KINDS = [("bfloat16", "float"), ("float32", "float"), ("bfloat16", "int8"), ("bfloat16", "int4")]
WORDS = "time people water light house story river music garden winter city school letter friend road mountain".split()


def prompts(n: int, words: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, words))).capitalize() + ". The" for _ in range(n)]


def measure(dtype: str, weights: str, texts: list[str], tokens: int) -> dict:
    engines = {
        flag: LLM(load(MODEL, dtype=dtype, weights=weights, deterministic=flag), max_texts=TOGETHER, prefix_cache=False)
        for flag in (False, True)
    }
    options = dict(max_tokens=tokens, greedy=True)
    found, speed, reading = {}, {False: [], True: []}, {False: [], True: []}
    for flag, engine in engines.items():
        alone = [engine.generate(text, **options)[0].ids for text in texts]
        together = [result.ids for result in engine.generate(texts, **options)]
        found[flag] = sum(a != b for a, b in zip(alone, together))
    long = list(range(1000, 1512))
    for _ in range(3):
        for flag, engine in engines.items():
            start = time.perf_counter()
            written = sum(len(result.ids) for result in engine.generate(texts[:TOGETHER], **options))
            speed[flag].append(written / (time.perf_counter() - start))
            start = time.perf_counter()
            engine.generate([long], max_tokens=1, greedy=True)
            reading[flag].append(len(long) / (time.perf_counter() - start))
    median = statistics.median
    return {"differ": found, "written": {k: median(v) for k, v in speed.items()},
            "read": {k: median(v) for k, v in reading.items()}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    asked = parser.parse_args()
    texts = prompts(asked.prompts, 60, seed=0)
    print(f"{machine()}; {torch.get_num_threads()} threads\n")
    print("| weights | texts that differ in company | with the flag | written, tokens/s | with the flag | read, tokens/s | with the flag |")
    print("|---|---|---|---|---|---|---|")
    for dtype, weights in KINDS:
        r = measure(dtype, weights, texts, asked.tokens)
        name = dtype if weights == "float" else weights
        cells = [f"{r['differ'][flag]} of {len(texts)}" for flag in (False, True)]
        cells += [f"{r[what][flag]:,.0f}" for what in ("written", "read") for flag in (False, True)]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
