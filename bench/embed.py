"""Sentence vectors: llmwright against sentence-transformers, the same model and documents, in turn; and what they are
worth.

    python bench/embed.py [--data ../shared/data] [--rounds 3] [--docs N] [--threads N]

all-MiniLM-L6-v2 (from `llmwright pull`) reads the documents of SciFact (BEIR's layout: corpus.jsonl,
queries.jsonl, qrels/test.tsv), title and text, at most 256 tokens. sentence-transformers runs in an environment of its
own, in float32, as it comes. Each run is a process: it loads, warms up, and is timed from the texts to the vectors.
Ratios are of medians over the rounds; the spread is the lowest and highest ratio of a round. Other precisions, theirs
and ours, run in the first round alone, for scale. With all documents (no --docs) the vectors are judged too: nDCG@10 of
SciFact's test queries and Spearman's correlation on STS-B's test set.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
PEER, OURS = "sentence-transformers float32", "llmwright auto"
OTHERS = ("llmwright bfloat16", "llmwright float32", "sentence-transformers bfloat16")


def scifact(data: Path) -> tuple[list[str], list[str], dict[str, str], dict[str, dict[str, int]]]:
    """Documents' ids and texts, queries, and which documents answer a query how well."""
    rows = [json.loads(line) for line in open(data / "scifact" / "corpus.jsonl", encoding="utf-8")]
    queries = {q["_id"]: q["text"] for q in map(json.loads, open(data / "scifact" / "queries.jsonl", encoding="utf-8"))}
    answers: dict[str, dict[str, int]] = {}
    for line in list(open(data / "scifact" / "qrels" / "test.tsv", encoding="utf-8"))[1:]:
        query, document, grade = line.split()
        answers.setdefault(query, {})[document] = int(grade)
    return [r["_id"] for r in rows], [f"{r['title']} {r['text']}".strip() for r in rows], queries, answers


def stsb(data: Path) -> tuple[list[str], list[str], list[float]]:
    """Two sentences a pair, and how alike people found them, 0 to 5."""
    lines = open(data / "stsbenchmark" / "sts-test.csv", encoding="utf-8").read().rstrip("\n").split("\n")
    rows = [line.split("\t") for line in lines]
    return [r[5] for r in rows], [r[6] for r in rows], [float(r[4]) for r in rows]


def theirs(path: str, dtype: str):
    """Runs in the peer's environment: a function from texts to vectors, and what it computes in."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(path, device="cpu", model_kwargs={"dtype": dtype})
    return lambda texts: model.encode(texts, batch_size=32, convert_to_numpy=True, show_progress_bar=False), dtype


def ours(path: str, dtype: str, texts: list[str]):
    import llmwright as lw
    from llmwright.engine import precision

    model = lw.load(path)
    start = time.perf_counter()
    chosen = precision.choose(model.model, model.tokenizer, texts) if dtype == "auto" else dtype
    took = time.perf_counter() - start
    precision.set_precision(model.model, chosen)
    return model.embed, f"{chosen}, chosen in {took:.1f} s" if dtype == "auto" else chosen


def measure(who: str, options) -> dict:
    import numpy as np
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    _, documents, queries, answers = scifact(options.data)
    documents = documents[:: max(1, len(documents) // options.docs)][: options.docs] if options.docs else documents
    system, dtype = who.split()
    embed, used = ours(options.model, dtype, documents) if system == "llmwright" else theirs(options.model, dtype)
    embed(documents[:32])
    start = time.perf_counter()
    vectors = embed(documents)
    seconds = time.perf_counter() - start
    if options.out:
        one, other, _ = stsb(options.data)
        asked = [queries[q] for q in answers]
        np.savez(options.out, documents=vectors, queries=embed(asked), one=embed(one), other=embed(other))
    return {"per_second": len(documents) / seconds, "used": used}


def judge(file: Path, data: Path) -> tuple[float, float]:
    """nDCG@10 of the test queries (gain grade, discount log2 of the rank + 1), and Spearman's correlation."""
    import numpy as np
    from scipy.stats import spearmanr

    found = {name: v.astype(np.float64) for name, v in np.load(file).items()}
    found = {name: v / np.linalg.norm(v, axis=1, keepdims=True) for name, v in found.items()}
    ids, _, _, answers = scifact(data)
    gains = []
    for query, grades in zip(found["queries"], answers.values()):
        best = np.argsort(-(found["documents"] @ query))[:10]
        discounts = 1 / np.log2(np.arange(2, 12))
        ideal = sorted(grades.values(), reverse=True)[:10]
        gains.append(sum(grades.get(ids[i], 0) * d for i, d in zip(best, discounts))
                     / sum(g * d for g, d in zip(ideal, discounts)))
    likeness = (found["one"] * found["other"]).sum(1)
    return float(np.mean(gains)), float(spearmanr(likeness, stsb(data)[2])[0])


def run(interpreter: str, who: str, options, out: str) -> dict:
    command = [interpreter, __file__, "--only", who, "--data", str(options.data), "--model", options.model]
    command += ["--docs", str(options.docs), "--threads", str(options.threads), "--out", out]
    # safe path: this folder's files are not to be taken for the peer's own modules
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{who} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--docs", type=int, default=0, help="only so many documents, and no judgement")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--model", default="all-minilm-l6-v2")
    parser.add_argument("--only", help="one measurement, in this process")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options)))
        return
    from peers import machine, python

    from llmwright.checkpoint.pull import resolve

    options.model = str(resolve(options.model))
    peer = python("sentence-transformers", "sentence-transformers==6.2.0")
    found: dict[str, list[dict]] = {who: [] for who in (OURS, PEER, *OTHERS)}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.rounds):
            for who in found if turn == 0 else (OURS, PEER):
                out = f"{folder}/{who}.npz" if turn == 0 and not options.docs else ""
                found[who].append(run(peer if who.startswith("sentence") else sys.executable, who, options, out))
        print(f"{machine()}; {options.rounds} rounds of {options.docs or 'all'} documents of SciFact")
        print("| who | documents/s (median) | times sentence-transformers float32 | nDCG@10 | Spearman STS-B |")
        print("|---" * 5 + "|")
        base = [row["per_second"] for row in found[PEER]]
        for who, rows in found.items():
            rates = [row["per_second"] for row in rows]
            ratios = [rate / other for rate, other in zip(rates, base)]
            ratio = statistics.median(rates) / statistics.median(base[: len(rates)])
            file = Path(folder) / f"{who}.npz"
            worth = "{:.4f} | {:.4f}".format(*judge(file, options.data)) if file.exists() else "|"
            name = f"{who} ({rows[0]['used']})" if "auto" in who else who
            spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
            print(f"| {name} | {statistics.median(rates):.1f} | {ratio:.2f} ({spread}) | {worth} |")


if __name__ == "__main__":
    main()
