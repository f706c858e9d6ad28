"""What a Prometheus reads from /metrics, by the names that dashboards for vLLM know, and a few of our own.

Every figure is counted where the thing happens, in the event loop, so that sums are exact.
"""

import time
from bisect import bisect_left
from collections import deque
from itertools import accumulate
from math import inf

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from .worker import Counts, Started

FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
WHOLE = (0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
SECONDS = 10.0  # over which tokens a second are counted
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Between:
    """A histogram that takes a value many times at once: all who are written in a step waited equally long for it."""

    def __init__(self, name: str, text: str, model: str):
        self.name, self.text, self.model = name, text, model
        self.counts, self.sum = [0] * (len(BETWEEN) + 1), 0.0

    def observe(self, value: float, count: int) -> None:
        self.counts[bisect_left(BETWEEN, value)] += count
        self.sum += value * count

    def collect(self):
        made = HistogramMetricFamily(self.name, self.text, labels=["model_name"])
        bounds = [floatToGoString(bound) for bound in (*BETWEEN, inf)]
        made.add_metric([self.model], list(zip(bounds, accumulate(self.counts))), self.sum)
        yield made


class Metrics:
    """`model`: the name under which it is served."""

    def __init__(self, model: str):
        self.registry = CollectorRegistry()
        self.model = model
        self.client = None  # the EngineClient, once it is there

        def make(kind, name: str, text: str, labels=(), **how):
            made = kind(name, text, ["model_name", *labels], registry=self.registry, **how)
            return made if labels else made.labels(model)

        self.running = make(Gauge, "vllm:num_requests_running", "Requests that are read or written.")
        self.waiting = make(Gauge, "vllm:num_requests_waiting", "Requests in the queue.")
        self.cache = make(Gauge, "vllm:kv_cache_usage_perc", "Blocks of keys and values in use; 1 is all.")
        self.prompt = make(Counter, "vllm:prompt_tokens", "Tokens of prompts.")
        self.generated = make(Counter, "vllm:generation_tokens", "Tokens that were written.")
        self.success = make(Counter, "vllm:request_success", "Texts that were finished.", ["finished_reason"])
        self.preemptions = make(Counter, "vllm:num_preemptions", "Texts that had to give their blocks back.")
        self.queries = make(Counter, "vllm:prefix_cache_queries", "Tokens that were looked for in the prefix cache.")
        self.hits = make(Counter, "vllm:prefix_cache_hits", "Tokens that were found in the prefix cache.")
        self.first = make(Histogram, "vllm:time_to_first_token_seconds", "Until the first token.", buckets=FIRST)
        self.between = Between("vllm:inter_token_latency_seconds", "Between tokens.", model)
        self.registry.register(self.between)
        self.whole = make(Histogram, "vllm:e2e_request_latency_seconds", "Of whole requests.", buckets=WHOLE)
        self.queue = make(Histogram, "vllm:request_queue_time_seconds", "In the queue.", buckets=WHOLE)
        self.prompts = make(Histogram, "vllm:request_prompt_tokens", "Tokens of a prompt.", buckets=TOKENS)
        self.texts = make(Histogram, "vllm:request_generation_tokens", "Tokens written for a request.", buckets=TOKENS)
        self.speed = make(Gauge, "llmwright:generation_tokens_per_second",
                          f"Tokens written a second, over the last {SECONDS:g} seconds.")
        self.failed = make(Counter, "llmwright:requests_failed", "Requests that were refused or failed.", ["reason"])
        self.ready = make(Gauge, "llmwright:ready", "1 where requests are taken.")
        self.lost = make(Gauge, "llmwright:kv_blocks_lost", "Blocks that nothing uses and nothing frees: 0, or a defect.")
        for reason in ("stop", "length", "abort", "tool_calls"):
            self.success.labels(model, reason)
        self.recent: deque[tuple[float, int]] = deque()
        self.preempted = 0

    # what the engine client tells

    def started(self, stream, event: Started) -> None:
        job = next(job for job in stream.jobs if job.number == event.number)
        self.prompt.inc(len(job.ids))
        self.queries.inc(len(job.ids))
        self.hits.inc(event.reused)
        self.prompts.observe(len(job.ids))
        self.queue.observe(max(0.0, event.time - stream.made))

    def began(self, stream, now: float) -> None:
        """Its first token came."""
        self.first.observe(now - stream.made)

    def wrote(self, n: int, gaps: dict[float, int], now: float) -> None:
        """A step that ended at `now` wrote n tokens. `gaps`: seconds a token since what came before, and how often."""
        self.generated.inc(n)
        for gap, count in gaps.items():
            self.between.observe(gap, count)
        self.recent.append((now, n))
        while self.recent[0][0] < now - SECONDS:
            self.recent.popleft()

    def cancelled(self, stream) -> None:
        """It was given up before its end."""
        self.success.labels(self.model, "abort").inc()

    def step(self, counts: Counts) -> None:
        self.preemptions.inc(max(0, counts.preemptions - self.preempted))
        self.preempted = counts.preemptions

    # what the API tells

    def finished(self, stream, reasons: list[str]) -> None:
        self.whole.observe(time.monotonic() - stream.made)
        self.texts.observe(stream.written)
        for reason in reasons:
            self.success.labels(self.model, reason).inc()

    def failure(self, reason: str) -> None:
        self.failed.labels(self.model, reason).inc()

    def text(self, ready: bool) -> bytes:
        client, now = self.client, time.monotonic()
        counts = client.counts
        there = len(client.open)
        self.running.set(min(counts.running, there))
        self.waiting.set(max(0, there - counts.running))
        self.cache.set(counts.blocks_used / counts.blocks if counts.blocks else 0.0)
        self.lost.set(counts.lost)
        self.speed.set(sum(n for at, n in self.recent if at >= now - SECONDS) / SECONDS)
        self.ready.set(ready)
        return generate_latest(self.registry)
