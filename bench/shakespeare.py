"""The classic laptop benchmark: characters of tinyshakespeare, the last tenth held out and scored whole.

    python bench/shakespeare.py PATH_TO/input.txt

In turn on one machine: the classic recipe (bench/classic_gpt.py: 4 layers, 128 wide, 2,000 AdamW steps in float32), then
`llmwright build recipes/shakespeare.yaml` with an eighth of the time that it took (and the settings of `SHORT`: ten seconds
want a smaller model, shorter rows and larger steps), then with all of it. Times are of
training alone, for both (for us evaluation, checkpoints and start-up are left out, as they are for the classic loop).
Scores are nats a character over the same 111,540 characters, in windows of one context each, every character once.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from peers import machine

HERE = Path(__file__).parent


SHORT = ("model.n_layers=2", "model.context=128", "train.batch=6", "train.optimizer.muon_lr=0.03", "train.optimizer.lr=0.01")


def ours(text: str, minutes: float, out: Path, settings: tuple[str, ...] = ()) -> dict:
    command = [sys.executable, "-m", "llmwright", "build", str(HERE.parent / "recipes" / "shakespeare.yaml"),
               f"data.corpus={text}", f"out={out}", f"train.max_minutes={minutes}", *settings, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    result = json.loads(done.stdout)["result"]
    return {"loss": result["final"]["val_loss"], "seconds": result["seconds"], "steps": result["steps"],
            "tokens_per_second": result["tokens_per_second"]}


def main() -> None:
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        raise SystemExit(__doc__)
    text = sys.argv[1]
    done = subprocess.run([sys.executable, HERE / "classic_gpt.py", text], capture_output=True, text=True, check=True)
    classic = json.loads(done.stdout)
    print(machine())
    print(f"  classic recipe        {classic['loss']:.4f} nats in {classic['seconds']:6.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        for name, share, settings in (("an eighth of its time", 1 / 8, SHORT), ("its whole time", 1.0, ())):
            r = ours(text, share * classic["seconds"] / 60, Path(folder) / name.replace(" ", "-"), settings)
            print(f"  ours, {name:21} {r['loss']:.4f} nats in {r['seconds']:6.1f} s  "
                  f"({r['steps']} steps, {r['tokens_per_second']:,.0f} tokens/s)")


if __name__ == "__main__":
    main()
