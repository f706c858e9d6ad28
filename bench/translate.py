"""German to English from scratch: train by recipes/translate.yaml, then score the held-out captions.

    python bench/translate.py MULTI30K [--out runs/translate] [key=value …]      # train and score
    python bench/translate.py MULTI30K --score MODEL                             # score a model that is there

MULTI30K is a folder with the set's six files (train, val and test_2016_flickr, .de.gz and .en.gz); `key=value` overrides
the recipe. BLEU is sacrebleu's on the raw references, cased, of greedy texts and of beam 4; nothing is chosen on the test
captions. Lower-cased BLEU stands beside it, since many published figures are of lower-cased text.
"""

import argparse
import gzip
import json
import subprocess
import sys
import time
from pathlib import Path

from peers import machine

RECIPE = Path(__file__).parent.parent / "recipes" / "translate.yaml"
SPLITS = {"train": "train", "val": "val", "test": "test_2016_flickr"}


def train(data: Path, out: str, overrides: list[str]) -> dict:
    """Build by the recipe; what it says of itself."""
    files = [
        f"data.pairs.multi30k.{split}.{side}={data / name}.{language}.gz"
        for split, name in SPLITS.items() for side, language in (("source", "de"), ("target", "en"))
    ]
    command = [sys.executable, "-m", "llmwright", "build", str(RECIPE), *files, f"out={out}", *overrides, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout)


def lines(file: Path) -> list[str]:
    return gzip.open(file, "rt", encoding="utf-8").read().splitlines()


def score(data: Path, model: str, length_penalty: float) -> None:
    import sacrebleu

    import llmwright

    loaded = llmwright.load(model)
    print("| captions | decoding | BLEU | lower-cased | seconds |\n|---|---|---|---|---|")
    for split in ("val", "test"):
        sources, references = (lines(data / f"{SPLITS[split]}.{language}.gz") for language in ("de", "en"))
        for name, options in (("greedy", {}), ("beam 4", {"beams": 4, "length_penalty": length_penalty})):
            start = time.perf_counter()
            texts = [result.text for result in loaded.generate(sources, max_tokens=100, **options)]
            seconds = time.perf_counter() - start
            cased = sacrebleu.BLEU()
            found = cased.corpus_score(texts, [references]).score
            lower = sacrebleu.corpus_bleu(texts, [references], lowercase=True).score
            print(f"| {SPLITS[split]} | {name} | {found:.2f} | {lower:.2f} | {seconds:.1f} |", flush=True)
    print(cased.get_signature())
    for source, reference, text in list(zip(sources, references, texts))[:5]:
        print(f"\n  {source}\n  {text}\n  ({reference})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--out", default="runs/translate")
    parser.add_argument("--score", metavar="MODEL")
    parser.add_argument("--length-penalty", type=float, default=1.0)
    asked = parser.parse_intermixed_args()
    for file in (asked.data / f"{name}.{language}.gz" for name in SPLITS.values() for language in ("de", "en")):
        if not file.is_file():
            raise SystemExit(f"{file}: there is no such file")
    print(machine())
    if asked.score is None:
        start = time.perf_counter()
        result = train(asked.data, asked.out, asked.overrides)["result"]
        print(f"{time.perf_counter() - start:,.0f} s in all, {result['seconds']:,.0f} s of them training: "
              f"{result['steps']:,} steps, {result['tokens_per_second']:,.0f} tokens/s (both sides), "
              f"validation loss {result['final']['val_loss']:.4f}")
    score(asked.data, asked.score or asked.out, asked.length_penalty)


if __name__ == "__main__":
    main()
