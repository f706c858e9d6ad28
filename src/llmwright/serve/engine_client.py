"""The server's side of the engine: jobs go out, what comes back is handed to whoever waits for it.

Two threads mind the pipe, one for each direction, so that neither process ever waits for the other to read. All else
happens in the event loop.
"""

import asyncio
import itertools
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..errors import Error, RequestError, WorkError
from . import worker
from .errors import ApiError
from .settings import EngineSettings
from .worker import About, Counts, Ended, Job, Started, Text

PARAMS = {name: name for name in ("response_format", "logit_bias", "bad_words", "max_tokens", "n")} | {
    "stop_tokens": "stop_token_ids", "text": "input"}
BEHIND = 20_000  # events that wait for a client who does not read them, before it is given up


@dataclass(eq=False)
class Stream:
    """What comes back for some jobs of one request: `async for events in stream`, each time all that is new. Use it in
    `async with`: at its end whatever is not done is cancelled.

    `first` is the number of its first job; text i of job j has the index n · j + i.
    """

    client: "EngineClient"
    jobs: list[Job]
    made: float
    started: float | None = None
    first_token: float | None = None
    reused: int = 0
    written: int = 0
    left: set[int] = field(default_factory=set)  # numbers of jobs that are not done
    events: list = field(default_factory=list)
    error: ApiError | None = None
    last: dict[tuple[int, int], float] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    timer: asyncio.TimerHandle | None = None
    at: dict[int, int] = field(default_factory=dict)

    @property
    def texts(self) -> int:
        return sum(getattr(job, "n", 1) for job in self.jobs)

    @property
    def prompt_tokens(self) -> int:
        return sum(len(job.ids) for job in self.jobs)

    def index(self, event: Text) -> int:
        return self.at[event.number] + event.i

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.client.close(self)

    def __aiter__(self):
        return self

    async def __anext__(self) -> list:
        """New events; raises ApiError where the request failed."""
        while True:
            if self.events:
                found, self.events = self.events, []
                return found
            if self.error:
                raise self.error
            if not self.left:
                raise StopAsyncIteration
            self.news.clear()
            await self.news.wait()

    def fail(self, error: ApiError) -> None:
        """It ends here, after what came already."""
        if self.left and not self.error:
            self.error = error
            self.client.drop(self)
        self.news.set()


class EngineClient:
    """Starts the worker and talks with it. `state` is "loading", "ready", "failed" (it could not load) or "dead".

    watch: told of what happens (`metrics.Metrics`). on_change(state): called in the event loop.
    """

    def __init__(self, settings: EngineSettings, watch, on_change: Callable[[str], None] = lambda state: None):
        self.settings, self.watch, self.on_change = settings, watch, on_change
        self.state, self.why = "loading", ""
        self.failure: Error | None = None
        self.about: About | None = None
        self.counts = Counts(0.0)
        self.open: dict[int, Stream] = {}
        self.streams: set[Stream] = set()
        self.numbers = itertools.count()
        self.out: queue.SimpleQueue = queue.SimpleQueue()

    def start(self) -> None:
        """Start the worker; call it in the event loop."""
        self.loop = asyncio.get_running_loop()
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=worker.main, args=(other, self.settings), daemon=True, name="engine")
        self.process.start()
        other.close()  # so that its end is the pipe's end
        for target in (self._read, self._write):
            threading.Thread(target=target, daemon=True).start()

    @property
    def texts(self) -> int:
        """Texts that are written or wait."""
        return sum(stream.texts for stream in self.streams)

    def submit(self, jobs: list[Job], seconds: float, what: str = "submit", payload=None) -> Stream:
        """Hand jobs over; `number`s are given here. After `seconds` they fail."""
        self.check()
        stream = Stream(self, [], time.monotonic())
        at = 0
        for job in jobs:
            number = next(self.numbers)
            job = replace(job, number=number)
            stream.jobs.append(job)
            stream.at[number] = at
            at += job.n
            stream.left.add(number)
            self.open[number] = stream
            self.out.put((what, job if what == "submit" else (number, *payload)))
        self.streams.add(stream)
        late = ApiError(504, f"the answer was not done after {seconds:g} seconds", code="timeout", reason="timeout")
        stream.timer = self.loop.call_later(seconds, stream.fail, late)
        return stream

    def check(self) -> None:
        """Raise ApiError unless the engine can take a job."""
        if self.state == "loading":
            raise ApiError(503, "the model is being loaded: try again soon", code="loading", headers={"Retry-After": "2"})
        if self.state != "ready":
            raise ApiError(500, f"the engine has stopped: {self.why}", code="engine_dead", reason="engine")

    def drop(self, stream: Stream) -> None:
        """What is not done of it is cancelled."""
        for number in stream.left:
            self.open.pop(number, None)
            if self.state == "ready":
                self.out.put(("cancel", number))
        stream.left.clear()
        self._forget(stream)

    def close(self, stream: Stream) -> None:
        if stream.left:
            self.watch.cancelled(stream)
        self.drop(stream)

    def _forget(self, stream: Stream) -> None:
        self.streams.discard(stream)
        if stream.timer:
            stream.timer.cancel()

    def fail_all(self, error: ApiError) -> None:
        for stream in list(self.streams):
            stream.fail(error)

    def stop(self) -> None:
        """End the worker."""
        self.state = "stopped" if self.state == "ready" else self.state
        self.out.put(("stop", None))
        self.out.put(None)
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(5)

    # the pipe

    def _write(self) -> None:
        while (message := self.out.get()) is not None:
            try:
                self.pipe.send(message)
            except (OSError, ValueError):
                return  # the reader sees that it is dead

    def _read(self) -> None:
        try:
            while True:
                self._tell(self._take, self.pipe.recv())
        except (EOFError, OSError):
            self.process.join()
            self._tell(self._died)

    def _tell(self, what, *values) -> None:
        try:
            self.loop.call_soon_threadsafe(what, *values)
        except RuntimeError:
            pass  # the loop is closed: the server has ended

    # in the event loop

    def _take(self, message: tuple) -> None:
        if message[0] == "ready":
            self.about = message[1]
            self._change("ready")
        elif message[0] == "failed":
            self.failure = (RequestError if message[2] == 2 else WorkError)(message[1])
            self.why = message[1]
            self._change("failed")
        else:
            _, events, self.counts = message
            for event in events:
                stream = self.open.get(event.number)
                if stream:
                    self._event(stream, event)
            self.watch.step(self.counts)

    def _event(self, stream: Stream, event) -> None:
        now = self.counts.time
        if isinstance(event, Text):
            key = event.number, event.i
            if stream.first_token is None:
                stream.first_token = now
            if event.ids:
                self.watch.tokens(stream, len(event.ids), now, stream.last.get(key))
                stream.last[key] = now
            stream.written += len(event.ids)
            if len(stream.events) >= BEHIND:
                stream.fail(ApiError(500, "the client does not read its answer", reason="slow_client"))
                return
            stream.events.append(event)
        elif isinstance(event, Started):
            if stream.started is None:
                stream.started = event.time
            stream.reused += event.reused
            self.watch.started(stream, event)
        elif isinstance(event, Ended):
            stream.left.discard(event.number)
            del self.open[event.number]
            if event.status != 200:
                code = "engine_error" if event.status >= 500 else None
                stream.left.add(event.number)
                named = event.message.split(":")[0].split(" ")[0]  # the engine's messages begin with what is at fault
                param = PARAMS.get(named) if event.status == 400 else None
                stream.fail(ApiError(event.status, event.message, code=code, param=param))
                return
            if event.value is not None:
                stream.events.append(event)
            if not stream.left:
                self._forget(stream)
        stream.news.set()

    def _died(self) -> None:
        if self.state in ("stopped", "failed"):
            return
        code = self.process.exitcode
        self.why = f"killed by signal {-code}" if code is not None and code < 0 else f"its process ended with code {code}"
        if self.state == "loading":
            self.failure = WorkError(f"the engine ended while it loaded the model: {self.why}")
        self._change("dead")
        self.fail_all(ApiError(500, f"the engine has stopped: {self.why}", code="engine_dead", reason="engine"))
        self.watch.step(Counts(time.monotonic()))

    def _change(self, state: str) -> None:
        self.state = state
        self.on_change(state)
