"""How fast `prepare` turns raw text into shards, and in how much memory.

    python bench/prepare.py               # (a) cleaning and exact deduplication, (b) near-duplicate removal as well
    python bench/prepare.py --gb 2        # one run over a corpus of this size, with the peak of memory

The text is the Python source in this environment (half of it as files, half as JSON Lines). A larger corpus is made
of documents that mix its paragraphs at random, so that deduplication does not collapse it. The tokenizer (byte-level
BPE, 4,096) is trained beforehand. Speed: raw bytes over wall time of a fresh process, its start left out. Memory: the
sum over all processes, sampled, with shared pages counted once (PSS; RSS where the system has no PSS). On a machine
that others use too, processor time (starting Python included) tells more than wall time.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import psutil


def sources(limit: int) -> list[str]:
    """Distinct Python files of this environment, at most `limit` bytes of them."""
    roots = [Path(sysconfig.get_path(name)) for name in ("purelib", "stdlib")]
    texts, size, seen = [], 0, set()
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            text = path.read_text(encoding="utf-8", errors="replace")
            if len(text) > 200 and text not in seen and size < limit:
                seen.add(text)
                texts.append(text)
                size += len(text.encode())
    random.Random(0).shuffle(texts)
    return texts


def mixed(texts: list[str], size: int):
    """Documents of about 10 kB from randomly chosen paragraphs, `size` bytes in all."""
    paragraphs = [p for text in texts for p in text.split("\n\n") if len(p) > 40]
    rng = random.Random(1)
    while size > 0:
        document, length = [], 0
        while length < 10_000:
            paragraph = rng.choice(paragraphs)[:5_000]
            document.append(paragraph)
            length += len(paragraph)
        document = "\n\n".join(document)
        size -= len(document.encode())
        yield document


def write_corpus(texts, folder: Path) -> int:
    folder.mkdir()
    size = 0
    rows = None
    for i, text in enumerate(texts):
        if i % 2:
            part = folder / f"{i // 2000:05d}"
            part.mkdir(exist_ok=True)
            data = text.encode()
            (part / f"{i}.py").write_bytes(data)
        else:
            if i % 20_000 == 0:
                rows = open(folder / f"rows-{i:07d}.jsonl", "wb")
            data = json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n"
            rows.write(data)
        size += len(data)
    rows.close()
    return size


RUN = """
import json, resource, sys, time
from llmwright import recipe
from llmwright.data.prepare import prepare
from llmwright.progress import Progress, Task

class Stages(Progress):
    took = {}
    def task(self, name, total=None, unit=""):
        class Timed(Task):
            def close(self, failed=False):
                Stages.took[name] = round(time.monotonic() - self.started, 2)
        return Timed(name, total, unit)

data, tokenizer, out = json.loads(sys.argv[1])
data, tokenizer = recipe.Data(**data), recipe.Tokenizer(**tokenizer)
start = time.monotonic()
card = prepare(data, tokenizer, out, progress=Stages())
seconds = time.monotonic() - start
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
steps = card["steps"]
print(json.dumps({
    "seconds": seconds, "cpu": sum(u.ru_utime + u.ru_stime for u in used), "stages": Stages.took,
    "documents": steps["read"]["documents"], "exact": steps["exact_duplicates"]["documents"],
    "near": steps["near_duplicates"]["documents"], "overlap": steps["overlap"]["documents"],
    "tokens": sum(s["tokens"] for s in card["splits"].values()),
}))
"""


def tree_memory(process: psutil.Process) -> int:
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            info = one.memory_full_info()
            total += getattr(info, "pss", info.rss)
        except psutil.Error:
            pass
    return total


def run(data: dict, tokenizer: dict, out: Path) -> dict:
    command = [sys.executable, "-c", RUN, json.dumps([data, tokenizer, str(out)])]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process, peak = psutil.Process(child.pid), 0
    while child.poll() is None:
        try:
            peak = max(peak, tree_memory(process))
        except psutil.Error:
            pass
        time.sleep(0.25)
    if child.returncode:
        sys.exit(f"prepare failed with exit code {child.returncode}")
    return json.loads(child.stdout.read()) | {"peak": peak}


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--mb", type=int, default=100, help="megabytes of distinct source for (a) and (b)")
    options.add_argument("--gb", type=float, help="one run over a corpus of so many gigabytes")
    options.add_argument("--near", action="store_true", help="with --gb: near-duplicate removal too")
    options.add_argument("--workers", type=int, default=0)
    options.add_argument("--repeat", type=int, default=2)
    options.add_argument("--tmp", help="where to put the corpus")
    args = options.parse_args()
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir=args.tmp) as folder:
        folder = Path(folder)
        texts = sources(args.mb * 10**6)
        small = folder / "small"
        write_corpus(texts[: len(texts) // 10], small)
        run({"corpus": str(small)}, {"vocab_size": 4096}, folder / "trained")
        tokenizer = {"path": str(folder / "trained" / "tokenizer")}
        documents = mixed(texts, int(args.gb * 10**9)) if args.gb else texts
        size = write_corpus(documents, folder / "corpus")
        del texts
        data = {"corpus": {"corpus": str(folder / "corpus")}, "workers": args.workers}
        if args.gb:
            cases = {"with near duplicates" if args.near else "exact only": 0.8 if args.near else None}
        else:
            cases = {"(a) exact only": None, "(b) with near duplicates": 0.8}
        for name, near in cases.items():
            for i in range(1 if args.gb else args.repeat):
                got = run(data | {"near_duplicates": near}, tokenizer, folder / f"out-{near}-{i}")
                speed, peak = size / 1e6 / got["seconds"], got["peak"] / 2**20
                print(f"{name}: {size / 1e6:.0f} MB in {got['seconds']:.1f} s = {speed:.1f} MB/s, {got['cpu']:.1f} s "
                      f"of processor time, peak {peak:.0f} MiB; {got['documents']:,} documents, dropped: exact "
                      f"{got['exact']:,}, near {got['near']:,}, overlap {got['overlap']:,}; {got['tokens']:,} tokens; "
                      f"{got['stages']}", flush=True)


if __name__ == "__main__":
    main()
