"""Texts written in a process of its own, without a server: by llama.cpp in its environment, or by our engine; and
the rate at which memory is read. `serve.py` starts it: python bench/serve_child.py WHO MODEL THREADS DTYPE.
"""

import json
import sys
import time

KEPT = 2 << 30  # bytes for keys and values


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
    from llmwright import spin

    spin.little()
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


def main() -> None:
    """Answers each line of its input with one: {"prompts": …, "n": …} with when each token came."""
    who, model, threads, dtype = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    if who == "read":
        write = None
    elif who == "llama.cpp":
        write = llama_cpp(model, threads)
    else:
        write = llmwright(model, threads, who, dtype)
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if write is None:
            print(json.dumps(read(threads)), flush=True)
            continue
        write([prompt[:8] for prompt in job["prompts"]][:1], 8)  # as after a rest
        begin = time.perf_counter()
        times = write(job["prompts"], job["n"])
        print(json.dumps([[t - begin for t in row] for row in times]), flush=True)


if __name__ == "__main__":
    main()
