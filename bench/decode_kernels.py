"""The kernels of a step of the engine against PyTorch's operators at the sizes of SmolLM2-135M, in turn, in one process.

    python bench/decode_kernels.py [--threads N] [--rounds 7] [--quality] [--only linear|head|attention]

A step computes N tokens: 1, 8 or 32 that are written, or 256 that are read. Linear layers: those of all 30 blocks, one
after the other, so that weights come from memory as they do in a step; the head by itself, four of them in turn.
Attention: all 30 layers, each text 300 tokens long. GB/s is what weights, or keys and values, take, over the time; its
share is of a plain read of memory in the same run. `--quality`: what 8 and 4 bits change in what SmolLM2 says
(`llmwright pull smollm2-135m-instruct`) about a page of English text (--text FILE).
"""

import argparse
import copy
import itertools
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from peers import machine

from llmwright import kernels

LAYERS, D, D_FF, V, H, K, C = 30, 576, 1536, 49152, 9, 3, 64
SHAPES = ((D, (H + 2 * K) * C), (H * C, D), (D, 2 * D_FF), (D_FF, D))  # inputs, outputs of a block, fused as they can be
TOKENS, LENGTH, BLOCK = (1, 8, 32, 256), 300, 16


def clock() -> float:
    """CPU time with one thread, which other programs on the machine disturb less; wall time with more."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def bandwidth() -> float:
    """Bytes a second of a plain read."""
    x = torch.ones(1 << 27)
    times = []
    for _ in range(5):
        start = clock()
        x.sum()
        times.append(clock() - start)
    return x.nbytes / min(times)


def compare(title: str, runs: dict, sizes: dict, rounds: int, most: float) -> None:
    """One line a run: milliseconds (median and least), the median's GB/s and its share of `most`, in bytes a second."""
    times = {name: [] for name in runs}
    with torch.inference_mode():
        for turn in range(rounds + 1):
            for name, f in runs.items():
                start = clock()
                f()
                if turn:
                    times[name].append(clock() - start)
    median = {name: sorted(t)[len(t) // 2] for name, t in times.items()}
    for name, seconds in median.items():
        rate = sizes[name] / seconds
        spent = f"{1e3 * seconds:.2f} | {1e3 * min(times[name]):.2f}"
        print(f"| {title} | {name} | {spent} | {rate / 1e9:.1f} | {rate / most:.0%} |", flush=True)


def linear(shapes, copies: int, title: str, rounds: int, most: float, every: int = 1) -> None:
    """`every`: only one of so many copies is used at a time."""
    layers = [(torch.randn(outputs, inputs) / inputs**0.5) for _ in range(copies) for inputs, outputs in shapes]
    kinds = {
        "8 bits": [kernels.quantized_weight(w, bits=8) for w in layers],
        "4 bits": [kernels.quantized_weight(w, bits=4) for w in layers],
        "steady bfloat16": [w.bfloat16() for w in layers], "steady float32": layers,
    }
    kinds |= {"F.linear bfloat16": kinds["steady bfloat16"], "F.linear float32": layers}
    sizes = {name: sum(w.nbytes for w in made) / every for name, made in kinds.items()}
    for N in TOKENS:
        if every > 1 and N == 256:
            continue  # a piece of a prompt needs the head for its last token at most
        runs = {}
        for name, made in kinds.items():
            dtype = torch.float32 if "float32" in name else torch.bfloat16
            x = {w.shape[1]: torch.randn(N, w.shape[1]).to(dtype) for w in layers}
            f = F.linear if "F." in name else kernels.linear_steady if "steady" in name else kernels.linear_quantized
            turn = itertools.cycle([made[i::every] for i in range(every)])
            runs[name] = lambda f=f, turn=turn, x=x: [f(x[w.shape[1]], w) for w in next(turn)]
        compare(f"{title}, N {N}", runs, sizes, rounds, most)


def gathered(q, keys, values, tables, rows, positions):
    """SDPA over a copy of what each query sees: one text's run of queries, or one query of each text."""
    if len(tables) == 1:
        k, v = (x[tables[0].long()].flatten(0, 1)[None, :LENGTH].transpose(1, 2) for x in (keys, values))
        y = F.scaled_dot_product_attention(
            q[None].transpose(1, 2), k, v, enable_gqa=True,
            attn_mask=torch.arange(LENGTH) <= positions[:, None])
        return y.transpose(1, 2)[0]
    k, v = (x[tables.long()].flatten(1, 2)[:, :LENGTH].transpose(1, 2) for x in (keys, values))
    return F.scaled_dot_product_attention(q[:, :, None], k, v, enable_gqa=True)[:, :, 0]


def attention(rounds: int, most: float) -> None:
    for N in TOKENS:
        texts = N if N < 256 else 1
        each = -(-LENGTH // BLOCK)
        tables = torch.randperm(texts * each).view(texts, each).int()
        if texts == 1:
            rows, positions = torch.zeros(N, dtype=torch.int32), torch.arange(LENGTH - N, LENGTH, dtype=torch.int32)
        else:
            rows, positions = torch.arange(N).int(), torch.full((N,), LENGTH - 1, dtype=torch.int32)
        runs, sizes = {}, {}
        for dtype in (torch.bfloat16, torch.float32):
            cache = torch.randn(2, LAYERS, texts * each, BLOCK, K, C).to(dtype)
            q = torch.randn(N, H, C).to(dtype)
            for name, f in (("paged_attention", kernels.paged_attention), ("gather and SDPA", gathered)):
                name = f"{name} {str(dtype)[6:]}"
                placed = (tables, rows, positions)
                runs[name] = lambda f=f, q=q, c=cache, p=placed: [f(q, keys, values, *p) for keys, values in zip(*c)]
                sizes[name] = 2 * LAYERS * texts * LENGTH * K * C * dtype.itemsize
        compare(f"attention, N {N}", runs, sizes, rounds, most)


def quality(path: str, file: Path | None) -> None:
    import llmwright as lw

    text = file.read_text(encoding="utf-8") if file else lw.__doc__
    loaded = lw.load(path, dtype="float32")
    model = loaded.model
    ids = torch.tensor([loaded.tokenizer.encode(text)[:1024]])

    class Few(torch.nn.Module):
        def __init__(self, layer, bits):
            super().__init__()
            self.held = kernels.quantized_weight(layer.weight, layer.bias, bits=bits)

        def forward(self, x):
            return kernels.linear_quantized(x, self.held)

    def replace(module, bits):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear):
                setattr(module, name, Few(child, bits))
            else:
                replace(child, bits)

    def measure(head_bits=None):
        with torch.inference_mode():
            states = model.hidden(ids)[0]
            if head_bits is None:
                return model.logits(states)
            return kernels.linear_quantized(states, kernels.quantized_weight(model.embed.weight, bits=head_bits)).float()

    def perplexity(logits):
        return math.exp(F.cross_entropy(logits[:-1], ids[0, 1:]).item())

    exact = measure()
    print(f"\n{ids.shape[1]} tokens; perplexity {perplexity(exact):.3f} in float32\n")
    print("| layers | head | mean logit error | of their standard deviation | perplexity | same first choice |")
    print("|---|---|---|---|---|---|")
    whole = copy.deepcopy(model.blocks)
    for bits in (8, 4):
        model.blocks = copy.deepcopy(whole)
        replace(model.blocks, bits)
        for head in (None, 8, 4):
            logits = measure(head)
            error = (logits - exact).abs().mean()
            same = (logits.argmax(-1) == exact.argmax(-1)).float().mean()
            print(f"| {bits} bits | {head or 'exact'} | {error:.4f} | {error / exact.std():.2%} | {perplexity(logits):.3f} | "
                  f"{same:.1%} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=["linear", "head", "attention"])
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--text", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.quality:
        return quality(options.model, options.text)
    most = bandwidth()
    print(f"{machine()}, {torch.get_num_threads()} thread(s), memory read at {most / 1e9:.1f} GB/s, "
          f"kernels: {kernels.using()['linear_quantized']}")
    print("| | | ms, median | least | GB/s | of the read |\n|---|---|---|---|---|---|")
    if options.only in (None, "linear"):
        linear(SHAPES, LAYERS, "linear layers", options.rounds, most)
    if options.only in (None, "head"):
        linear(((D, V),), 4, "head", options.rounds, most, every=4)
    if options.only in (None, "attention"):
        attention(options.rounds, most)


if __name__ == "__main__":
    main()
