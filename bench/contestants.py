"""Those whom `serve.py` measures: servers and engines, each in processes of its own, which stand still while
another's turn is measured.
"""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from serve_child import KEPT


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
    """`serve_child.py` in a Python of its own."""

    def __init__(self, python: str, who: str, asked, model: str):
        command = [python, str(Path(__file__).with_name("serve_child.py")), who, model, str(asked.threads), asked.dtype]
        environment = {**os.environ, "OMP_NUM_THREADS": str(asked.threads), "PYTHONSAFEPATH": "1"}
        super().__init__(subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True))
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
    cores = sorted(os.sched_getaffinity(0))[: asked.threads]  # left alone it would keep one of them for HTTP
    environment = {
        **os.environ, "VLLM_CPU_KVCACHE_SPACE": str(KEPT >> 30), "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONSAFEPATH": "1",
        **({"LD_PRELOAD": ":".join(libraries)} if libraries else {}),
    }
    log = tempfile.NamedTemporaryFile("w+", suffix=".log", delete=False)
    process = subprocess.Popen(
        [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(directory), "--served-model-name", "m",
         "--dtype", "bfloat16", "--max-model-len", "2048", "--host", "127.0.0.1", "--port", str(port),
         "--disable-uvicorn-access-log"],
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
    """What vLLM's documentation has one load before it: Intel's OpenMP, which comes with it, and tcmalloc, if it is
    here (Debian: libtcmalloc-minimal4)."""
    found = (*(home / "lib").glob("libiomp5.so"), *Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4"))
    return list(map(str, found))
