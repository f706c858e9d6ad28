"""Each kernel against PyTorch's operators: milliseconds of forward and backward, taken in turn in one process.

    python bench/kernels.py [--threads N]

Prints CPU time of the process with one thread (other programs on the machine disturb it little), wall time with more.
"""

import argparse
import time

import torch
import torch.nn.functional as F
from peers import machine

from llmwright import kernels
from llmwright.kernels import plain, reference


def sdpa(q, k, v, causal):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True).transpose(1, 2)


def row(title, ours, others, inputs, clock, rounds=9, **keywords):
    """One line of the table: ours, the best of `others` and its name, the ratio of the medians."""
    inputs = [x.requires_grad_() for x in inputs]
    gradient = torch.randn(ours(*inputs, **keywords).shape).to(inputs[0].dtype)
    times = {}
    for turn in range(rounds + 1):
        for name, f in {"ours": ours, **others}.items():
            start = clock()
            y = f(*inputs, **keywords)
            torch.autograd.grad(y, inputs, gradient.to(y.dtype))
            if turn:  # the first warms up
                times.setdefault(name, []).append(1e3 * (clock() - start))
    show(title, times)


def forward(title, runs, clock, rounds=9):
    """One line of the table, without gradients."""
    times = {}
    with torch.inference_mode():
        for turn in range(rounds + 1):
            for name, f in runs.items():
                start = clock()
                f()
                if turn:
                    times.setdefault(name, []).append(1e3 * (clock() - start))
    show(title, times)


def show(title, times):
    median = {name: sorted(t)[len(t) // 2] for name, t in times.items()}
    mine = median.pop("ours")
    rest = ", ".join(f"{name} {value:.2f}" for name, value in median.items())
    print(f"| {title} | {mine:.2f} | {rest} | {min(median.values()) / mine:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(threads := parser.parse_args().threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    print(f"{machine()}, {threads} thread(s), kernels: {kernels.using()['attention']}")
    print("| forward + backward, ms | ours | PyTorch | times faster |\n|---|---|---|---|")
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")

        def random(*shape, dtype=dtype):
            return torch.randn(*shape).to(dtype)

        for shape in ((4096, 256), (768, 128), (16, 256, 4, 64)):
            others = {"reference": reference.rms_norm, "F.rms_norm": plain.rms_norm}
            inputs = [random(*shape), torch.randn(shape[-1])]
            row(f"rms_norm {shape} {name}", kernels.rms_norm, others, inputs, clock, eps=1e-6)
        inputs = [random(4096, 384), torch.randn(384), torch.randn(384), random(4096, 384)]
        others = {title: lambda x, w, b, added, f=f: f(x, w, b, 1e-12, added) for title, f in
                  (("reference", reference.layer_norm), ("F.layer_norm", plain.layer_norm))}
        ours = lambda x, w, b, added: kernels.layer_norm(x, w, b, 1e-12, added)  # noqa: E731
        row(f"layer_norm of a sum (4096, 384) {name}", ours, others, inputs, clock)
        cos, sin = torch.randn(2, 1, 256, 32)
        others = {"reference": reference.rotary}
        row(f"rotary (16, 256, 4, 64) {name}", kernels.rotary, others, [random(16, 256, 4, 64)], clock, cos=cos, sin=sin)
        others = {"silu · mul": reference.swiglu}
        row(f"swiglu (4096, 704) {name}", kernels.swiglu, others, [random(4096, 704), random(4096, 704)], clock)
        others = {"reference": reference.dropout}
        row(f"dropout (4096, 256) {name}", kernels.dropout, others, [random(4096, 256)], clock, p=0.2)
        for B, T, H, C in ((16, 256, 4, 64), (64, 64, 4, 64), (12, 64, 4, 32), (1, 2048, 6, 64)):
            others = {"reference": reference.attention, "SDPA": sdpa}
            inputs = [random(B, T, H, C) for _ in range(3)]
            title = f"attention B{B} T{T} H{H} C{C} causal {name}"
            row(title, kernels.attention, others, inputs, clock, rounds=3 if T > 1000 else 7, causal=True)
        others = {"reference": reference.linear_cross_entropy}
        inputs, targets = [random(4096, 384) / 5, torch.randn(8192, 384) / 5], torch.randint(0, 8192, (4096,))
        title = f"linear_cross_entropy (4096, 384), V 8192 {name}"
        row(title, kernels.linear_cross_entropy, others, inputs, clock, rounds=3, targets=targets)
    print("\n| forward, ms | ours | PyTorch | times faster |\n|---|---|---|---|")
    for K, outputs, gelu in ((384, 384, False), (384, 1536, True), (1536, 384, False)):
        x, weight, bias = torch.randn(4096, K), torch.randn(outputs, K) / K**0.5, torch.randn(outputs)
        small, act = kernels.int8_weight(weight, bias), F.gelu if gelu else lambda y: y
        half, halves = x.bfloat16(), (weight.bfloat16(), bias.bfloat16())
        forward(f"linear_int8 (4096, {K}) to {outputs}{', GELU' * gelu}", {
            "ours": lambda: kernels.linear_int8(half, small, gelu=gelu),
            "F.linear bfloat16": lambda: act(F.linear(half, *halves)),
            "F.linear float32": lambda: act(F.linear(x, weight, bias)),
        }, clock)


if __name__ == "__main__":
    main()
