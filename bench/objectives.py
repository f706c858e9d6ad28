"""What masked and span pretraining taught, beside a new model of the same shape that learned nothing.

    python bench/objectives.py masked [--seeds 3] [--out runs/objectives] [key=value …]      # train, then measure
    python bench/objectives.py span   [--seeds 3] [--out runs/objectives] [key=value …]

Each seed builds recipes/masked.yaml or recipes/span.yaml (weights, masks and order of text differ; the split of the text is
the same). `key=value` overrides the recipe. Everything is measured on test documents that no training saw.

masked  masks filled     share of the masked tokens (15 %, whole words or not, as the recipe has it) that are guessed first
        wrong tokens     each row has a tenth of its tokens exchanged for tokens from elsewhere in the text; a logistic
                         regression on the frozen states says of each token whether it is wrong. Fitted on validation
                         text, area under the ROC curve on test text: 0.5 is a guess. The untrained model's figure is
                         what single tokens give away.
span    tokens           share of the target's tokens that are guessed first, those before them given
        spans            sources as in training; share of the spans that greedy writing gives exactly, by their length
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from peers import machine

RECIPES = Path(__file__).parent.parent / "recipes"
ROWS, CONTEXT = 160, 128  # test rows of the wrong-token check and of the span check, and their length
WRONG = 0.1


def build(kind: str, seed: int, out: Path, overrides: list[str]) -> dict:
    """Train by the recipe; what the build says of it."""
    command = [sys.executable, "-m", "llmwright", "build", str(RECIPES / f"{kind}.yaml"), f"out={out}", f"seed={seed}", *overrides]
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout)


class Case:
    """A run's data and model, and the same shape with new weights."""

    def __init__(self, out: Path, seed: int):
        from llmwright import recipe as recipes
        from llmwright.build.tasks import TASKS
        from llmwright.checkpoint.directory import load
        from llmwright.data.shards import DataDir
        from llmwright.model.build import new
        from llmwright.tokens.load import load as load_tokenizer

        recipe, self.data = recipes.load(out / "recipe.yaml"), DataDir.open(out / "data")
        self.tokenizer = load_tokenizer(self.data.tokenizer_path)
        trained = load(out / "model")
        self.models = {"trained": trained, "untrained": new(trained.config, seed).eval()}
        self.task = {name: TASKS[recipe.train.objective](recipe, self.data, self.tokenizer, m) for name, m in self.models.items()}

    def targets_right(self, name: str) -> float:
        from llmwright.progress import Progress

        return self.task[name].test(self.models[name], "test", Progress())["accuracy"]


def measure_masked(case: Case, seed: int) -> dict:
    return {name: {"masks filled": case.targets_right(name), "wrong tokens": wrong_tokens(case, model, seed)}
            for name, model in case.models.items()}


def wrong_tokens(case: Case, model, seed: int) -> float:
    """Area under the ROC curve of a linear probe for exchanged tokens."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.preprocessing import StandardScaler

    parts = [states_and_labels(case, model, name, seed) for name in ("val", "test")]
    scaler = StandardScaler().fit(parts[0][0])
    probe = LogisticRegression(max_iter=200, C=0.1).fit(scaler.transform(parts[0][0]), parts[0][1])
    return float(roc_auc_score(parts[1][1], probe.decision_function(scaler.transform(parts[1][0]))))


@torch.no_grad()
def states_and_labels(case: Case, model, name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The last states of the tokens of `ROWS` rows, (N, D), and which were exchanged."""
    draw = np.random.default_rng(seed)
    ids = rows(case, name)
    others = ids.reshape(-1)
    wrong = (draw.random(ids.shape) < WRONG) & (ids != case.data.card["bos_id"])
    shown = np.where(wrong, others[draw.integers(len(others), size=ids.shape)], ids)
    wrong &= shown != ids
    states = [model.hidden(part).float() for part in torch.from_numpy(shown).split(16)]
    return torch.cat(states).flatten(0, 1).numpy(), wrong.reshape(-1)


def rows(case: Case, name: str, length: int = CONTEXT) -> np.ndarray:
    """`ROWS` rows of `length` tokens, spread over the documents of a split that have so many: (ROWS, length)."""
    split = case.data.split(name)
    columns = [source.spans()[:2] for source in split.sources.values()]
    start, size = (np.concatenate(column) for column in zip(*columns))
    start, size = start[size >= length], size[size >= length]
    begins = np.concatenate([np.arange(s, s + n - length + 1, length) for s, n in zip(start, size)])
    begins = begins[np.arange(ROWS) * len(begins) // ROWS]
    return split.take((begins[:, None] + np.arange(length)).reshape(-1)).reshape(ROWS, length)


def measure_span(case: Case, seed: int) -> dict:
    return {name: {"tokens": case.targets_right(name), **spans_right(case, name, model)} for name, model in case.models.items()}


def spans_right(case: Case, name: str, model) -> dict:
    """Exactly written spans, all and by length."""
    from llmwright.data.order import key
    from llmwright.engine.generate import generate
    from llmwright.engine.sampler import Sampling

    corruption = case.task[name].collate
    texts = rows(case, "test", corruption.row_tokens(CONTEXT))
    pairs = [corruption.corrupt(row[~corruption.special[row]], key(7, i)) for i, row in enumerate(texts)]
    longest = max(len(target) for _, target in pairs)
    made = generate(model, case.tokenizer, [source.tolist() for source, _ in pairs], max_tokens=longest + 5, sampling=Sampling(temperature=0))
    right: dict[str, list[bool]] = {"spans": []}
    for (_, target), result in zip(pairs, made):
        wanted, got = spans(target.tolist(), corruption), spans(result.ids, corruption)
        for sentinel, span in wanted.items():
            exact = got.get(sentinel) == span
            right["spans"].append(exact)
            right.setdefault(f"of {len(span)}" if len(span) < 4 else "of 4 or more", []).append(exact)
    return {name: float(np.mean(found)) for name, found in sorted(right.items(), key=lambda item: item[0] != "spans")}


def spans(ids: list[int], corruption) -> dict[int, list[int]]:
    """What follows each sentinel, up to the next one or the end."""
    found, name = {}, None
    for i in ids:
        if i in corruption.sentinels:
            name, found[i] = i, []
        elif i == corruption.eos_id:
            break
        elif name is not None:
            found[name].append(i)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["masked", "span"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/objectives"))
    options, overrides = parser.parse_known_args()
    found: dict[tuple[str, str], list[float]] = {}
    for seed in range(1, options.seeds + 1):
        out = options.out / f"{options.kind}-{seed}"
        result = build(options.kind, seed, out, overrides)["result"]
        measured = {"masked": measure_masked, "span": measure_span}[options.kind](Case(out, seed), seed)
        print(f"seed {seed}: {result['steps']:,} steps, {result['tokens']:,} tokens in {result['seconds']:.0f} s "
              f"({result['tokens_per_second']:,.0f} tokens/s); {json.dumps(measured)}", file=sys.stderr, flush=True)
        for name, figures in measured.items():
            for what, value in figures.items():
                found.setdefault((what, name), []).append(value)
    print(machine())
    print("| on test text | trained | untrained |\n|---|---|---|")
    for what in dict.fromkeys(what for what, _ in found):
        cells = (found[what, name] for name in ("trained", "untrained"))
        print(f"| {what} | " + " | ".join(f"{np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in cells) + " |")


if __name__ == "__main__":
    main()
