"""A real server in a process of its own, on a port that is free, and a small model for it."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

import httpx

from llmwright import families
from llmwright.checkpoint import directory
from llmwright.model.build import new
from llmwright.tokens.tokenizer import Tokenizer
from llmwright.tokens.train import train

TEMPLATE = (
    "{% if messages[0].content == 'refuse' %}{{ raise_exception('it does not begin so') }}{% endif %}"
    "{% if messages[0].content == 'loop' %}{% for i in range(10 ** 9) %}x{% endfor %}{% endif %}"
    "{% if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools> answer with <tool_call>{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ '<|endoftext|>' if m.role == 'assistant' else '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def save_model(path: Path, *, template: str | None = TEMPLATE, context: int = 512) -> Path:
    """A random model with large weights, so that its texts differ from place to place."""
    text = (Path(sysconfig.get_path("stdlib")) / "ast.py").read_text()
    made = train([text, "Größe 你好 🙂 " * 20], "bpe", 450)
    tokenizer = Tokenizer(made.tree, {**made.config, **({"chat_template": template} if template else {})})
    shape = dict(model_type="qwen3", hidden_size=48, num_hidden_layers=2, num_attention_heads=4, head_dim=16,
                 num_key_value_heads=2, intermediate_size=96, max_position_embeddings=context, initializer_range=0.3,
                 vocab_size=tokenizer.vocab_size, eos_token_id=tokenizer.eos_id, tie_word_embeddings=True)
    directory.save(new(families.read_config(shape), seed=1), path, tokenizer=tokenizer)
    return path


class Server:
    """`llmwright serve MODEL OPTIONS`: `url`, `client` (httpx), `log()` (its lines so far)."""

    def __init__(self, model: Path | str, *options: str, ready: bool = True):
        self.lines, self.said = [], []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llmwright", "serve", str(model), "--name", "m", "--port", "0", "--threads", "1",
             "--dtype", "float32", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.url = None
        threading.Thread(target=self._collect, args=(self.process.stderr, self.lines), daemon=True).start()
        if ready:
            line = self.process.stdout.readline()
            assert " is served at http" in line, (line, self.lines)
            self.url = line.split()[-1]
            self.client = httpx.Client(base_url=self.url, timeout=60)
        threading.Thread(target=self._collect, args=(self.process.stdout, self.said), daemon=True).start()

    def _collect(self, stream, lines: list) -> None:
        for line in stream:
            lines.append(line)

    def log(self) -> list[dict]:
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def post(self, path: str, **body) -> httpx.Response:
        return self.client.post(path, json={"model": "m", **body} if path.startswith("/v1") else body)

    def complete(self, **body) -> dict:
        answer = self.post("/v1/completions", **body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def stream(self, path: str, **body) -> list[dict]:
        """The events of a stream, [DONE] left out."""
        with self.client.stream("POST", path, json={"model": "m", "stream": True, **body}) as answer:
            assert answer.status_code == 200, answer.read()
            lines = [line for line in answer.iter_lines() if line]
        assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
        return [json.loads(line[6:]) for line in lines[:-1]]

    def metrics(self) -> dict[str, float]:
        """Samples by name; labels but the model's stand behind it."""
        from prometheus_client.parser import text_string_to_metric_families

        found = {}
        for family in text_string_to_metric_families(self.client.get("/metrics").text):
            for sample in family.samples:
                labels = ",".join(f"{k}={v}" for k, v in sample.labels.items() if k not in ("model_name", "le"))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    def idle(self, seconds: float = 10) -> dict[str, float]:
        """Wait until nothing runs; then all blocks are free and nothing is open. Returns the metrics."""
        end = time.monotonic() + seconds
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
                 "llmwright:kv_blocks_lost")
        while True:
            found = self.metrics()
            if not any(found[name] for name in names):
                return found
            assert time.monotonic() < end, {name: found[name] for name in names}
            time.sleep(0.02)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def engine(self) -> int:
        """The id of the engine's process."""
        import psutil

        return next(child.pid for child in psutil.Process(self.process.pid).children()
                    if "spawn_main" in " ".join(child.cmdline()))

    def wait(self, seconds: float = 20) -> int:
        return self.process.wait(seconds)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
