"""What a step of the engine does beside the model's own work: calls from Python, tensors made, and where the time goes.

    python bench/step.py [--texts 1,32] [--weights int4]

SmolLM2-135M-Instruct, greedy texts that are all being written, one thread, so that processor time is the step's own. Calls are
counted over 50 steps, in a run of their own, as counting takes time.
"""

import argparse
import collections
import cProfile
import pstats
import random
import time

from llmwright import spin

spin.little()  # before PyTorch is loaded

import torch  # noqa: E402
from peers import machine  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from llmwright.engine.language_model import load  # noqa: E402
from llmwright.engine.llm import LLM  # noqa: E402
from llmwright.engine.sampler import GREEDY  # noqa: E402

MODEL, STEPS = "smollm2-135m-instruct", 50
PARTS = [  # of a step: the name, and the functions whose own and inner time it is
    ("the blocks (one native call)", "native.py", "run_tape"), ("the head", "quantized.py", "linear"),
    ("who is computed (Scheduler.plan)", "scheduler.py", "plan"), ("what was computed (Scheduler.computed)", "scheduler.py", "computed"),
    ("choosing (row.choose)", "row.py", "choose"), ("ids to text (Row.advance)", "row.py", "advance"),
]


class Made(TorchDispatchMode):
    """Counts the operators of PyTorch that run."""

    def __init__(self):
        super().__init__()
        self.found = collections.Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.found[str(function).removesuffix(".default")] += 1
        return function(*args, **(kwargs or {}))


def writing(loaded, texts: int) -> LLM:
    """An engine in which so many texts are being written and nothing is read any more."""
    rng, engine = random.Random(0), LLM(loaded, prefix_cache=False)
    for _ in range(texts):
        ids = [rng.randrange(100, 40_000) for _ in range(20)]
        engine.submit(ids, max_tokens=400, sampling=GREEDY, log_probs=False)
    for request in {s.owner[0] for s in engine.scheduler.waiting}:
        for row in request.rows:
            row.ends = frozenset()
    while engine.scheduler.waiting or any(s.left > 1 for s in engine.scheduler.running):
        engine.step()
    return engine


def seconds(engine: LLM) -> float:
    start = time.process_time()
    for _ in range(STEPS):
        engine.step()
    return (time.process_time() - start) / STEPS


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", default="1,32")
    parser.add_argument("--weights", default="int4")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load(MODEL, dtype="bfloat16", weights=asked.weights)
    print(f"{machine()}; {asked.weights}, one thread\n")
    for texts in map(int, asked.texts.split(",")):
        engine = writing(loaded, texts)
        whole = min(seconds(engine) for _ in range(3))
        profile = cProfile.Profile(time.process_time)
        profile.enable()
        for _ in range(STEPS):
            engine.step()
        profile.disable()
        stats = pstats.Stats(profile)
        with torch.inference_mode(), Made() as made:
            for _ in range(STEPS):
                engine.step()
        print(f"{texts} texts: {1e3 * whole:.2f} ms a step, {stats.total_calls / STEPS:.0f} calls from Python, "
              f"{sum(made.found.values()) / STEPS:.0f} operators of PyTorch")
        for name, file, function in PARTS:
            spent = sum(row[3] for (where, _, what), row in stats.stats.items() if where.endswith("/" + file) and what == function)
            print(f"  {1e3 * spent / STEPS:7.3f} ms  {name}")
        for name, count in made.found.most_common(40):
            print(f"  {count / STEPS:7.1f}  {name}")
