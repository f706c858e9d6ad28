"""The server against llama.cpp and vLLM on the CPU, in turn, one machine, one run: the table of speed.

    python bench/serve.py [--rounds 3] [--weights int4,int8,float] [--only CASE …] [--json FILE]

SmolLM2-135M-Instruct (`llmwright pull smollm2-135m-instruct`): ours with its matrices in 4 and 8 bits and in bfloat16;
vLLM for the CPU in bfloat16; llama.cpp with the published 4-bit file (Q4_1). All with the same number of threads,
greedy, answers of the same length; the prompts of a case are the same random words for all.

Ours and vLLM are asked through HTTP by one client (`llmwright.serve.load`). llama.cpp writes one text in its own
process, through its C interface, without a server: its best case; ours is measured in the same way beside HTTP. All are
started once and stand still, stopped by a signal, while another's turn is measured: in each round, each case goes
through all of them. What is printed is the median of the rounds (lowest–highest), and ratios round by round.

    decode      tokens/s while all streams of a run write: from the last one's first token to the first one's last
    prefill     tokens of a new prompt / time to the first token
    prefix      first token of a prompt / of a second one that begins with the same 500 tokens
    arrivals    requests at random times (Poisson, seeded), prompts of 32 to 512 tokens, answers of 16 to 256
    http        tokens/s of 32 streams, all in all, beside as many given to `engine.llm.LLM` in its own process
    memory      bytes of weights, keys and values that a token takes × tokens/s / a plain read of memory
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from contestants import Contestant, InProcess, Served, ours, vllm
from serve_table import PEERS, streams, table, traffic

CASES = ("decode", "prefill", "prefix", "arrivals", "http", "memory")


def measure(asked, servers: dict, alone: dict, found: dict, turn: int) -> None:
    """One round: each case, everyone in turn; figures are appended to found[case, who]."""
    from llmwright.serve import bench

    def note(case: str, who: str, value) -> None:
        value = float("nan") if value is None else value  # answers so short that at no time all of them wrote
        found.setdefault((case, who), []).append(value)
        print(f"round {turn + 1}: {case}: {who}: {value:,.4g}", file=sys.stderr, flush=True)

    case = bench.Case((1, 8, 32), asked.prompt, asked.answer, 1, 500, asked.arrivals, asked.rate, asked.seed + turn)
    words = next(iter(servers.values())).asker.ids
    rng = random.Random(asked.seed + turn)

    def fresh(server: Served, name: str) -> Served:
        """The same prompts for all, and none that begins like one of another case: a prefix cache would have it."""
        server.asker.rng.seed(f"{asked.seed} {turn} {name}")
        return server

    def prompts(n: int) -> list[list[int]]:
        return [rng.choices(words, k=case.prompt) for _ in range(n)]

    if "memory" in asked.only:
        with alone["read"] as reader:
            note("a plain read, bytes/s", "", reader.ask())
    for n in case.streams:
        for who, server in servers.items():
            if "decode" in asked.only:
                with fresh(server, f"streams {n}"):
                    row = bench.streams(server.asker, n, case)
                check(row, who)
                note(f"decode, {streams(n)}", who, row["decode_tokens_per_second"])
                note(f"all of {streams(n)}", who, row["tokens_per_second"])
                note(f"client, {streams(n)}", who, row["client"])
    if "decode" in asked.only:
        (prompt,) = prompts(1)
        for who, one in alone.items():
            if who != "read":
                with one:
                    note("decode, 1 stream, in process", who, one.decode(prompt, case.answer))
    for who, server in servers.items():
        if "http" in asked.only and who in alone:  # one right after the other: it is about a few per cent
            with fresh(server, "http"):
                note("32 streams, through HTTP", who, bench.streams(server.asker, 32, case)["tokens_per_second"])
            with alone[who] as one:
                note("32 streams, in process", who, one.whole(prompts(32), case.answer))
    for name, title, key in (("prefill", "prefill of 500 tokens", "tokens_per_second"),
                             ("prefix", "second request, times sooner", "times_sooner")):
        for who, server in servers.items():
            if name in asked.only:
                with fresh(server, name):
                    row = getattr(bench, name)(server.asker, bench.Case(rounds=3))
                note(title, who, row[key])
    for who, server in servers.items():
        if "arrivals" in asked.only:
            with fresh(server, "arrivals"):
                row = bench.arrivals(server.asker, case)
            check(row, who)
            note("arrivals, P95 first token, ms", who, 1000 * row["first_token"]["p95"])
            note("arrivals, P95 between tokens, ms", who, 1000 * row["between_tokens"]["p95"])


def check(row: dict, who: str) -> None:
    if row["failed"]:
        raise SystemExit(f"{who}: {row['failed']} of {row['requests']} requests failed: {row['error']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", default="int4,int8,float", help="of ours")
    parser.add_argument("--dtype", default="bfloat16", help="of ours: what it computes in")
    parser.add_argument("--only", nargs="*", choices=CASES, default=CASES)
    parser.add_argument("--without", nargs="*", choices=("vllm", "llama.cpp"), default=())
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--answer", type=int, default=128)
    parser.add_argument("--arrivals", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2.0, help="arrivals a second")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-preload", action="store_true", help="vLLM without Intel's OpenMP and tcmalloc")
    parser.add_argument("--patience", type=float, default=900, help="seconds for vLLM to start: it compiles at first")
    parser.add_argument("--json", help="all figures of all rounds")
    asked = parser.parse_args()
    import peers

    from llmwright.checkpoint.pull import resolve
    from llmwright.errors import Error

    place = resolve(asked.model)
    file = place if place.is_file() else next(iter(place.glob("*.gguf")))
    directory = peers.CACHE.parent / "bench" / f"{file.stem}-bf16"
    if not (directory / "config.json").is_file():
        directory.parent.mkdir(parents=True, exist_ok=True)
        export = [sys.executable, "-m", "llmwright", "export", asked.model, "--to", "safetensors", "--type", "bf16"]
        subprocess.run([*export, "-o", directory], check=True, stdout=subprocess.DEVNULL)
    running: list[Contestant] = []

    def start(what: Contestant) -> Contestant:
        running.append(what)
        return what.stop()

    servers, alone, found = {}, {}, {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        if "vllm" not in asked.without:
            print("starting vLLM …", file=sys.stderr)
            peer = start(vllm(asked, directory))
        for weights in asked.weights.split(","):
            print(f"starting ours, {weights} …", file=sys.stderr)
            servers[f"ours {weights}"] = start(ours(asked, weights))
            alone[f"ours {weights}"] = start(InProcess(sys.executable, weights, asked, asked.model))
        if "vllm" not in asked.without:
            servers[PEERS[0]] = peer
        if "llama.cpp" not in asked.without and "decode" in asked.only:
            alone[PEERS[1]] = start(InProcess(peers.llama_cpp(), "llama.cpp", asked, str(file)))
        alone["read"] = start(InProcess(sys.executable, "read", asked, asked.model))
        names = [*dict.fromkeys((*servers, *(who for who in alone if who != "read")))]
        for turn in range(asked.rounds):
            measure(asked, servers, alone, found, turn)
    except Error as error:
        raise SystemExit(f"{error}") from None
    finally:
        for each in running:
            each.close()
    print(f"{peers.machine()}; {asked.threads} threads, {asked.rounds} rounds, prompts of {asked.prompt} tokens, "
          f"answers of {asked.answer}; ours computes in {asked.dtype}; median (lowest–highest)")
    table(found, names, asked, *traffic(directory, file, names))
    if asked.json:
        figures = {f"{case} | {who}": values for (case, who), values in found.items()}
        Path(asked.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
