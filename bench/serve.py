"""The server against llama.cpp and vLLM on the CPU, in turn, one machine, one run: the table of speed.

    python bench/serve.py [--rounds 3] [--weights int4,int8,float] [--only CASE …] [--json FILE]

SmolLM2-135M-Instruct (`llmwright pull smollm2-135m-instruct`): ours with its matrices in 4 and 8 bits and in bfloat16, vLLM
in bfloat16 (`bench/peers.py`; vLLM for the CPU is made for that), llama.cpp with the published 4-bit file (Q4_1). All with the same
number of threads, greedy, answers of the same length; the prompts of a case are the same random words for all.

Ours and vLLM are asked through HTTP by one client (`llmwright.serve.load`). llama.cpp writes one text in its own process,
through its C interface, without a server: its best case; ours is measured in the same way beside HTTP. All are started
once and wait, stopped by a signal, while another's turn is measured: in each round, each case goes through all of them. What is
printed is the median of the rounds (lowest–highest), and ratios round by round.

    decode        tokens/s while all streams of a run write: from the last one's first token to the first one's last
    prefill       tokens of a new prompt / time to the first token
    prefix        first token of a prompt / of a second one that begins with the same 500 tokens
    arrivals      requests at random times (Poisson, seeded), prompts of 32 to 512 tokens, answers of 16 to 256
    http          tokens/s of 32 streams, all in all, beside the same requests given to `engine.llm.LLM` in its own process
    memory        bytes of weights, keys and values that a token takes × tokens/s / a plain read of memory in the same run
"""

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KEPT = 2 << 30  # bytes for keys and values
CASES = ("decode", "prefill", "prefix", "arrivals", "http", "memory")
PEERS = ("vLLM bf16", "llama.cpp Q4_1")


# --- in a process of their own: one text or many, without a server ---


def llama_cpp(path: str, threads: int):
    """(prompt, n) → times of its tokens, in llama.cpp's environment."""
    import ctypes

    import llama_cpp as c

    quiet = c.llama_log_callback(lambda *_: None)
    c.llama_log_set(quiet, ctypes.c_void_p())
    c.llama_backend_init()
    model = c.llama_model_load_from_file(path.encode(), c.llama_model_default_params())
    settings = c.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_threads, settings.n_threads_batch = 2048, 2048, threads, threads
    context = c.llama_init_from_model(model, settings)
    greedy = c.llama_sampler_init_greedy()

    def write(prompts: list[list[int]], n: int) -> list[list[float]]:
        (prompt,), times = prompts, []
        c.llama_memory_clear(c.llama_get_memory(context), True)
        tokens = (c.llama_token * len(prompt))(*prompt)
        for _ in range(n):
            if c.llama_decode(context, c.llama_batch_get_one(tokens, len(tokens))):
                raise SystemExit("llama.cpp: llama_decode failed")
            tokens = (c.llama_token * 1)(c.llama_sampler_sample(greedy, context, -1))
            times.append(time.perf_counter())
        return [times]

    write.keep = quiet
    return write


def llmwright(model: str, threads: int, weights: str, dtype: str):
    import torch

    from llmwright.engine.language_model import load
    from llmwright.engine.llm import LLM
    from llmwright.engine.sampler import Sampling

    torch.set_num_threads(threads)
    engine = LLM(load(model, dtype=dtype, weights=weights), memory=KEPT)

    def write(prompts: list[list[int]], n: int) -> list[list[float]]:
        times = [[] for _ in prompts]
        told = [0] * len(prompts)
        sampling = Sampling(temperature=0, min_tokens=n)
        requests = [engine.submit(prompt, max_tokens=n, sampling=sampling, log_probs=False) for prompt in prompts]
        while not all(request.done for request in requests):
            engine.step()
            now = time.perf_counter()
            for i, request in enumerate(requests):
                new = len(request.rows[0].result.ids) - told[i]
                told[i] += new
                times[i] += [now] * new
        return times

    return write


def read(threads: int) -> float:
    """Bytes a second of a plain read of memory."""
    import torch

    torch.set_num_threads(threads)
    x = torch.ones(1 << 27)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        x.sum()
        times.append(time.perf_counter() - start)
    return x.nbytes / min(times)


def child(asked) -> None:
    """Answers each line of its input with one: {"prompts": …, "n": …} with when each token came."""
    who = asked.child
    if who == "read":
        write = None
    elif who == "llama.cpp":
        write = llama_cpp(asked.model, asked.threads)
    else:
        write = llmwright(asked.model, asked.threads, who, asked.dtype)
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if write is None:
            print(json.dumps(read(asked.threads)), flush=True)
            continue
        write([prompt[:8] for prompt in job["prompts"]][:1], 8)  # as after a rest
        begin = time.perf_counter()
        times = write(job["prompts"], job["n"])
        print(json.dumps([[t - begin for t in row] for row in times]), flush=True)


# --- those that are measured ---


class Contestant:
    """A process that works only in `with`, and is stopped outside of it."""

    def __init__(self, process: subprocess.Popen):
        self.process = process

    def stop(self):
        os.killpg(self.process.pid, signal.SIGSTOP)
        return self

    def __enter__(self):
        os.killpg(self.process.pid, signal.SIGCONT)
        return self

    def __exit__(self, *_):
        self.stop()

    def close(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGCONT)
            self.process.terminate()
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class InProcess(Contestant):
    """This file as `child`, in a Python of its own."""

    def __init__(self, python: str, who: str, asked, model: str):
        command = [python, __file__, "--child", who, "--model", model, "--threads", str(asked.threads), "--dtype", asked.dtype]
        environment = {**os.environ, "OMP_NUM_THREADS": str(asked.threads), "PYTHONSAFEPATH": "1"}
        super().__init__(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                                          start_new_session=True))
        if self.process.stdout.readline() != "ready\n":
            raise SystemExit(f"{who} could not be started")

    def ask(self, **job):
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a child has ended: its error stands above")
        return json.loads(line)

    def decode(self, prompt: list[int], n: int) -> float:
        """Tokens a second after the first."""
        (times,) = self.ask(prompts=[prompt], n=n)
        return (len(times) - 1) / (times[-1] - times[0])

    def whole(self, prompts: list[list[int]], n: int) -> float:
        """Tokens a second of all of it."""
        times = self.ask(prompts=prompts, n=n)
        return sum(map(len, times)) / max(row[-1] for row in times)


class Served(Contestant):
    """A server, ours or vLLM's: `asker` asks it."""

    def __init__(self, process: subprocess.Popen, url: str, seed: int):
        from llmwright.serve.bench import Asker
        from llmwright.serve.load import Target

        super().__init__(process)
        self.asker = Asker(Target.of(url), seed=seed)

    def __enter__(self):
        from llmwright.serve.load import run

        super().__enter__()
        run(self.asker.target, [(0.0, self.asker.body(16, 8))])  # as after a rest
        return self


def ours(asked, weights: str) -> Served:
    from llmwright.serve.launch import Launched

    made = Launched(asked.model, "--weights", weights, "--dtype", asked.dtype, "--threads", str(asked.threads),
                    "--cache-memory", str(KEPT))
    served = Served(made.process, made.url, asked.seed)
    served.launched = made  # its log goes with it
    return served


def vllm(asked, directory: Path) -> Served:
    import peers

    python = peers.vllm()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    libraries = [] if asked.no_preload else preloaded(Path(python).parents[1])
    environment = {
        **os.environ, "VLLM_CPU_KVCACHE_SPACE": str(KEPT >> 30), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0))[: asked.threads])), "PYTHONSAFEPATH": "1",
        **({"LD_PRELOAD": ":".join(libraries)} if libraries else {}),
    }
    log = tempfile.NamedTemporaryFile("w+", suffix=".log", delete=False)
    process = subprocess.Popen(
        [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(directory), "--served-model-name", "m", "--dtype",
         "bfloat16", "--max-model-len", "2048", "--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"],
        stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
    end = time.monotonic() + asked.patience
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return Served(process, f"http://127.0.0.1:{port}", asked.seed)
        except OSError:
            time.sleep(0.5)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    raise SystemExit(f"vLLM did not start; what it said: {log.name}")


def preloaded(home: Path) -> list[str]:
    """What vLLM's documentation has one load before it: Intel's OpenMP, which comes with it, and tcmalloc, if it is here
    (Debian: libtcmalloc-minimal4)."""
    return [str(file) for file in (*(home / "lib").glob("libiomp5.so"), *Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4"))]


# --- the rounds ---


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
        """The same prompts for all, and none that begins like one of another case, which would be found in a prefix cache."""
        server.asker.rng.seed(f"{asked.seed} {turn} {name}")
        return server

    def prompts(n: int) -> list[list[int]]:
        return [rng.choices(words, k=case.prompt) for _ in range(n)]

    if "memory" in asked.only:
        with alone["read"] as reader:
            note("a plain read, bytes/s", "", reader.ask())
    for n in case.streams:
        for who, server in servers.items():
            if "decode" in asked.only or n == 32 and "http" in asked.only and who not in PEERS:
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
    if "http" in asked.only:
        many = prompts(32)
        for who, one in alone.items():
            if who in servers:
                with one:
                    note("all of 32 streams, in process", who, one.whole(many, case.answer))
    for name, figure in (("prefill", lambda row: row["tokens_per_second"]), ("prefix", lambda row: row["times_sooner"])):
        for who, server in servers.items():
            if name in asked.only:
                with fresh(server, name):
                    row = getattr(bench, name)(server.asker, bench.Case(rounds=3))
                note({"prefill": "prefill of 500 tokens", "prefix": "second request, times sooner"}[name], who, figure(row))
    for who, server in servers.items():
        if "arrivals" in asked.only:
            with fresh(server, "arrivals"):
                row = bench.arrivals(server.asker, case)
            check(row, who)
            note("arrivals, P95 first token, ms", who, 1000 * row["first_token"]["p95"])
            note("arrivals, P95 between tokens, ms", who, 1000 * row["between_tokens"]["p95"])


def streams(n: int) -> str:
    return f"{n} stream" + "s" * (n > 1)


def check(row: dict, who: str) -> None:
    if row["failed"]:
        raise SystemExit(f"{who}: {row['failed']} of {row['requests']} requests failed: {row['error']}")


# --- what is printed ---


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
    rows = [("decode, 1 stream, in process", "llama.cpp Q4_1", False, "1"), ("decode, 8 streams", "vLLM bf16", False, "1"),
            ("decode, 32 streams", "vLLM bf16", False, "1"), ("prefill of 500 tokens", "vLLM bf16", False, "1"),
            ("arrivals, P95 first token, ms", "vLLM bf16", True, "1"),
            ("arrivals, P95 between tokens, ms", "vLLM bf16", True, "1")]
    print(f"\n| times as good | than | asked | {' | '.join(mine)} |\n|" + "---|" * (len(mine) + 3))
    for case, peer, less, least in rows:
        theirs = found.get((case, peer))
        if theirs:
            ratios = [[(t / o if less else o / t) for o, t in zip(found[case, who], theirs)] for who in mine]
            print(f"| {case.removesuffix(', ms')} | {peer} | {least} | {' | '.join(map(cell, ratios))} |")
    served, peer = "decode, 1 stream", "decode, 1 stream, in process"
    if (peer, PEERS[1]) in found and (served, mine[0]) in found:
        ratios = [[o / t for o, t in zip(found[served, who], found[peer, PEERS[1]])] for who in mine]
        print(f"| decode, 1 stream, ours through HTTP | {PEERS[1]}, in process | | {' | '.join(map(cell, ratios))} |")
    if ("second request, times sooner", mine[0]) in found:
        values = [cell(found["second request, times sooner", who]) for who in mine]
        print(f"| second request with a shared prefix of 500 tokens | cold | 5 | {' | '.join(values)} |")
    if ("all of 32 streams, in process", mine[0]) in found:
        lost = [[100 * (1 - o / t) for o, t in zip(found["all of 32 streams", who], found["all of 32 streams, in process", who])]
                for who in mine]
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
    print(f"\nA plain read of memory: {most / 1e9:.1f} GB/s. Weights: "
          + ", ".join(f"{who} {sizes[who] / 1e6:.0f} MB" for who in names) + f"; keys and values {kv / 1e3:.1f} kB a position, "
          f"{context:.0f} positions.\n")
    print(f"| share of it | {' | '.join(names)} |\n|" + "---|" * (len(names) + 1))
    for case, n in (("decode, 1 stream, in process", 1), *((f"decode, {streams(n)}", n) for n in (1, 8, 32))):
        cells = [
            f"{statistics.median(found[case, who]) * (sizes[who] / n + kv * context) / most:.0%}" if (case, who) in found else ""
            for who in names
        ]
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
        "ours int4": blocks * each[4] + head * each[8], "ours int8": (blocks + head) * each[8], "ours float": 2 * (blocks + head),
        "vLLM bf16": 2 * (blocks + head), "llama.cpp Q4_1": file.stat().st_size,
    }
    return {who: known[who] for who in names}, 2 * 2 * c["num_hidden_layers"] * keys


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
    parser.add_argument("--patience", type=float, default=600, help="seconds for vLLM to start: the first time it compiles")
    parser.add_argument("--json", help="all figures of all rounds")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked)
        return
    import peers

    from llmwright.checkpoint.pull import resolve
    from llmwright.errors import Error

    place = resolve(asked.model)
    file = place if place.is_file() else next(iter(place.glob("*.gguf")))
    directory = peers.CACHE.parent / "bench" / f"{file.stem}-bf16"
    if not (directory / "config.json").is_file():
        directory.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "llmwright", "export", asked.model, "--to", "safetensors", "--type", "bf16", "-o",
                        directory], check=True, stdout=subprocess.DEVNULL)
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
    print(f"{peers.machine()}; {asked.threads} threads, {asked.rounds} rounds, prompts of {asked.prompt} tokens, answers of "
          f"{asked.answer}; ours computes in {asked.dtype}; median (lowest–highest)")
    table(found, names, asked, *traffic(directory, file, names))
    if asked.json:
        Path(asked.json).write_text(json.dumps({f"{case} | {who}": values for (case, who), values in found.items()}, indent=1))


if __name__ == "__main__":
    main()
