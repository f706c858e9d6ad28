"""Context beyond training: perplexity against length, for each position scheme and each way to stretch it.

Models of 0.4M weights, alike but for their positions, are trained on 128 tokens at a time (Python's standard library,
a byte-level BPE of 512). Then the same tokens of held-out files are scored by each, with ever more text before them:
the last 64 of 128, 256, 512 and 1,024 tokens. A scheme that works gets better with length, or at least no worse.

    python bench/context.py [--steps 1000] [--only rotary] [--model MODEL]

One model takes about three minutes on one core. Writes docs/positions/context.json, which docs/positions/plot.py draws.
`--model` measures the sliding window on a published model instead (`--model smollm2-135m-instruct`).
"""

import argparse
import copy
import json
import math
import platform
import sysconfig
import time
from dataclasses import replace
from pathlib import Path

import torch

from llmwright.engine.window import Window, WindowStepper
from llmwright.model.build import build, new
from llmwright.model.config import (
    ALiBi, Attention, FeedForward, Learned, ModelConfig, Norm, Relative, RopeScaling, Rotary, Sinusoidal,
)
from llmwright.tokens.train import train as train_tokenizer

CONTEXT, BATCH, SCORED, LENGTHS, TEXTS = 128, 16, 64, (128, 256, 512, 1024), 64
VOCABULARY, PART = 512, 512
OUT = Path(__file__).parents[1] / "docs" / "positions" / "context.json"
TIMES = LENGTHS[-1] // CONTEXT  # how much further than it was trained


def shape(positions) -> ModelConfig:
    return ModelConfig(
        family="llama", vocab_size=VOCABULARY, d_model=96, n_layers=3, context=CONTEXT, attention=Attention(4, 4, 24),
        feed_forward=FeedForward(256), positions=positions, norm=Norm("rms"), tie_embeddings=True,
        init_residual_scale=6**-0.5,
        # beside sines of size 1 (Vaswani et al. 2017, section 3.4)
        embedding_scale=96**0.5 if isinstance(positions, Sinusoidal) else 1.0,
    )


def text() -> tuple[torch.Tensor, torch.Tensor]:
    """Training tokens, and held-out texts (TEXTS, 1025) of files that are long enough."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    held_out, seen = texts[::10], [t for i, t in enumerate(texts) if i % 10]
    tokenizer = train_tokenizer(seen, "bpe", VOCABULARY)
    ids = [torch.tensor([int(i) for i in tokenizer.encode(t)]) for t in held_out]
    rows = [row for t in ids for row in t[: len(t) // (LENGTHS[-1] + 1) * (LENGTHS[-1] + 1)].view(-1, LENGTHS[-1] + 1)]
    rows = rows[:: max(1, len(rows) // TEXTS)][:TEXTS]
    return torch.cat([torch.tensor([int(i) for i in tokenizer.encode(t)]) for t in seen]), torch.stack(rows)


def learn(model, ids: torch.Tensor, steps: int, length: int = CONTEXT, batch: int = BATCH, peak: float = 3e-3):
    """AdamW, a short warm-up, a linear decay. Returns the mean loss of the last 50 steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.1)
    generator, losses = torch.Generator().manual_seed(1), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1, (step + 1) / 50, (steps - step) / (0.7 * steps))
        at = torch.randint(len(ids) - length - 1, (batch, 1), generator=generator) + torch.arange(length + 1)
        loss = model.cross_entropy(model.hidden(ids[at[:, :-1]]), ids[at[:, 1:]].contiguous()) / (batch * length)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-50:]) / 50


@torch.no_grad()
def perplexities(model, rows: torch.Tensor) -> list[float | None]:
    """Of the last SCORED tokens of each row, with as much text before them as makes each length."""
    found = []
    for length in LENGTHS:
        if isinstance(model.config.positions, Learned) and length > CONTEXT:
            found.append(None)  # no vector was ever trained
            continue
        losses = []
        for row in rows.split(8):
            part = row[:, -length - 1 :]
            hidden = model.hidden(part[:, :-1])[:, -SCORED:]
            losses.append(model.token_losses(hidden, part[:, -SCORED:].contiguous()))
        found.append(math.exp(torch.cat(losses).mean()))
    return found


@torch.no_grad()
def in_window(model, rows: torch.Tensor, window: Window) -> torch.Tensor:
    """-log p of each token of `rows` (B, T + 1) after the first, (B, T), through a cache that slides: the text goes in
    as a prompt would."""
    steps, losses, at, length = WindowStepper(model, [[0]] * len(rows), window), [], 0, rows.shape[1] - 1
    while at < length:
        end = min(at + steps.room(), length)
        ids = rows[:, at:end]
        hidden = steps.feed(ids, torch.ones_like(ids, dtype=torch.bool))
        losses.append(model.token_losses(hidden, rows[:, at + 1 : end + 1].contiguous()))
        at = end
    return torch.cat(losses, 1)


def stretched(model, positions):
    """The same weights with other positions."""
    other = build(replace(model.config, positions=positions))
    other.load_state_dict(copy.deepcopy(model.state_dict()), strict=False)
    return other


def small_models(steps: int, tuning: int, only: str | None = None) -> dict:
    ids, rows = text()
    print(f"{len(ids):,} training tokens, {rows.numel():,} held out; {steps} steps of {BATCH} × {CONTEXT}", flush=True)
    found, trained = {"measured": {}}, {}
    schemes = {"rotary": Rotary(), "ALiBi": ALiBi(), "relative": Relative(32, 128), "sinusoidal": Sinusoidal(),
               "learned": Learned(CONTEXT)}
    for name, scheme in schemes.items():
        if only not in (None, name):
            continue
        start = time.perf_counter()
        trained[name] = model = new(shape(scheme), seed=0)
        loss = learn(model, ids, steps)
        say(found, name, perplexities(model.eval(), rows), f"{time.perf_counter() - start:.0f} s, loss {loss:.3f}")
    if only:
        return found
    rotary = trained["rotary"]
    scalings = {
        "linear": RopeScaling("linear", TIMES, CONTEXT), "NTK-aware": RopeScaling("ntk", TIMES, CONTEXT),
        "dynamic NTK": RopeScaling("dynamic", 1.0, CONTEXT), "YaRN": RopeScaling("yarn", TIMES, CONTEXT),
        "Llama 3": RopeScaling("llama3", TIMES, CONTEXT),
    }
    for name, scaling in scalings.items():
        say(found, f"rotary, {name}", perplexities(stretched(rotary, Rotary(scaling=scaling)).eval(), rows))
    for sinks in (0, 4):
        say(found, f"rotary, window 128, {sinks} sinks", [
            math.exp(in_window(rotary, rows[:, -length - 1 :], Window(CONTEXT, sinks))[:, -SCORED:].mean())
            for length in LENGTHS])
    for name, scaling in (("plain", None), *((name, scalings[name]) for name in ("linear", "YaRN"))):
        tuned = stretched(rotary, Rotary(scaling=scaling)).train()
        learn(tuned, ids, tuning, length=LENGTHS[-1], batch=2, peak=1e-3)
        say(found, f"rotary, {name}, tuned", perplexities(tuned.eval(), rows), f"{tuning} steps of 2 × {LENGTHS[-1]}")
    learned = torch.nn.functional.normalize(trained["learned"].positions.weight, dim=-1)
    found["learned positions, cosine with"] = {
        str(p): [round(x, 3) for x in (learned @ learned[p]).tolist()] for p in (0, 16, 64, 112)}
    found["relative, learned numbers"] = [
        [round(x, 3) for x in head] for head in trained["relative"].positions.weight.T.tolist()]
    return found


def published(path: str) -> None:
    """Perplexity along one long text of a published model, in a window with and without sinks."""
    import llmwright as lw

    loaded = lw.load(path)
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = "".join(file.read_text(encoding="utf-8") for file in files[3:8])
    ids = torch.tensor([[int(i) for i in loaded.tokenizer.encode(text)][: 4 * PART + 1]])
    print(f"{path}: perplexity of each {PART} tokens of one text, {ids.shape[1] - 1:,} in all")
    rows = {f"window 256, {sinks} sinks": Window(256, sinks) for sinks in (0, 1, 4)}
    rows["everything seen"] = Window(4 * PART, 0)
    for name, window in rows.items():
        losses = in_window(loaded.model, ids, window)[0].split(PART)
        print("".join(f"{math.exp(part.mean()):10.2f}" for part in losses), "", name, flush=True)


def say(found: dict, name: str, row: list[float | None], more: str = "") -> None:
    found["measured"][name] = [None if x is None else round(x, 2) for x in row]
    print("".join("         –" if x is None else f"{x:10.2f}" for x in row), f" {name}", more, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--tuning", type=int, default=100)
    parser.add_argument("--only", help="one scheme again, beside what context.json has")
    parser.add_argument("--model")
    options = parser.parse_args()
    if options.model:
        return published(options.model)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = {"machine": f"{platform.machine()}, torch {torch.__version__}, one thread", "steps": options.steps,
             "lengths": list(LENGTHS)}
    made = small_models(options.steps, options.tuning, options.only)
    if options.only:
        found = json.loads(OUT.read_text())
        made = {"measured": found["measured"] | made["measured"]}
    found |= made
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
