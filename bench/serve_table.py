"""What `serve.py` measured, as tables: medians of the rounds, ratios round by round, shares of the memory's rate."""

import json
import statistics
from pathlib import Path

PEERS = ("vLLM bf16", "llama.cpp Q4_1")


def table(found: dict, names: list[str], asked, sizes: dict[str, float], kv: float) -> None:
    def cell(values: list[float] | None) -> str:
        values = [value for value in values or () if value == value]
        if not values:
            return ""
        return f"{number(statistics.median(values))} ({number(min(values))}–{number(max(values))})"

    cases = list(dict.fromkeys(case for case, _ in found if not case.startswith(("client", "a plain"))))
    print(f"\n| | {' | '.join(names)} |\n|" + "---|" * (len(names) + 1))
    for case in cases:
        print(f"| {case} | {' | '.join(cell(found.get((case, who))) for who in names)} |")

    mine = [who for who in names if who not in PEERS]
    vllm, llama_cpp = PEERS
    rows = [("decode, 1 stream, in process", llama_cpp, False), ("decode, 8 streams", vllm, False),
            ("decode, 32 streams", vllm, False), ("prefill of 500 tokens", vllm, False),
            ("arrivals, P95 first token, ms", vllm, True), ("arrivals, P95 between tokens, ms", vllm, True)]
    print(f"\n| times as good | than | asked | {' | '.join(mine)} |\n|" + "---|" * (len(mine) + 3))
    for case, peer, less in rows:
        theirs = found.get((case, peer))
        if theirs:
            ratios = [[(t / o if less else o / t) for o, t in zip(found[case, who], theirs)] for who in mine]
            print(f"| {case.removesuffix(', ms')} | {peer} | 1 | {' | '.join(map(cell, ratios))} |")
    served, peer = "decode, 1 stream", "decode, 1 stream, in process"
    if (peer, PEERS[1]) in found and (served, mine[0]) in found:
        ratios = [[o / t for o, t in zip(found[served, who], found[peer, PEERS[1]])] for who in mine]
        print(f"| decode, 1 stream, ours through HTTP | {PEERS[1]}, in process | | {' | '.join(map(cell, ratios))} |")
    if ("second request, times sooner", mine[0]) in found:
        values = [cell(found["second request, times sooner", who]) for who in mine]
        print(f"| second request with a shared prefix of 500 tokens | cold | 5 | {' | '.join(values)} |")
    if ("32 streams, in process", mine[0]) in found:
        pairs = [zip(found["32 streams, through HTTP", who], found["32 streams, in process", who]) for who in mine]
        lost = [[100 * (1 - through / inside) for through, inside in pair] for pair in pairs]
        print(f"| % that HTTP takes of 32 streams' tokens/s | in process | under 5 | {' | '.join(map(cell, lost))} |")
    shares(found, names, asked, sizes, kv)
    clients = [value for (case, _), values in found.items() if case.startswith("client") for value in values]
    if clients:
        print(f"\nThe client took at most {max(clients):.1%} of one core.")


def shares(found: dict, names: list[str], asked, sizes: dict[str, float], kv: float) -> None:
    """Memory traffic over a plain read: a step of n texts reads the weights once, and each text's keys and values."""
    reads = found.get(("a plain read, bytes/s", ""))
    if not reads:
        return
    most, context = statistics.median(reads), asked.prompt + asked.answer / 2
    weights = ", ".join(f"{who} {sizes[who] / 1e6:.0f} MB" for who in names)
    print(f"\nA plain read of memory: {most / 1e9:.1f} GB/s. Weights: {weights}; keys and values {kv / 1e3:.1f} kB a "
          f"position, {context:.0f} positions.\n")
    print(f"| share of it | {' | '.join(names)} |\n|" + "---|" * (len(names) + 1))
    for case, n in (("decode, 1 stream, in process", 1), *((f"decode, {streams(n)}", n) for n in (1, 8, 32))):
        rates = [statistics.median(found.get((case, who), [0])) for who in names]
        parts = [rate * (sizes[who] / n + kv * context) / most for who, rate in zip(names, rates)]
        cells = [f"{part:.0%}" if part else "" for part in parts]
        if any(cells):
            print(f"| {case} | {' | '.join(cells)} |")


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def traffic(directory: Path, file: Path, names: list[str]) -> tuple[dict[str, float], float]:
    """Bytes of the matrices that a token goes through, of each; and of the keys and values of a position."""
    import torch

    from llmwright import kernels

    c = json.loads((directory / "config.json").read_text())
    head = c["vocab_size"] * c["hidden_size"]
    width, keys = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    block = c["hidden_size"] * (2 * width + 2 * keys + 3 * c["intermediate_size"])
    blocks = c["num_hidden_layers"] * block
    each = {bits: kernels.quantized_weight(torch.ones(64, 64), bits=bits).nbytes / 64**2 for bits in (4, 8)}
    known = {
        "ours int4": blocks * each[4] + head * each[8], "ours int8": (blocks + head) * each[8],
        "ours float": 2 * (blocks + head), "vLLM bf16": 2 * (blocks + head), "llama.cpp Q4_1": file.stat().st_size,
    }
    return {who: known[who] for who in names}, 2 * 2 * c["num_hidden_layers"] * keys


def streams(n: int) -> str:
    return f"{n} stream" + "s" * (n > 1)
