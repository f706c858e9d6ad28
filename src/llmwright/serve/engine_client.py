"""The server's side of the engine: jobs go out, what comes back is handed to whoever waits for it, all in the event loop.

There is one message a step, and all that it brings is counted in one pass; then each request that it brought something
is woken once.
"""

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..errors import Error, RequestError, WorkError
from .errors import ApiError
from .pipe import LoopPipe
from .settings import EngineSettings
from .worker import About, Counts, Ended, Job, Process, Started, Text

PARAMS = {name: name for name in ("response_format", "logit_bias", "bad_words", "max_tokens", "n")} | {
    "stop_tokens": "stop_token_ids", "text": "input"}
BEHIND = 20_000  # events that wait for a client who does not read them, before it is given up


class Gone(Exception):
    """The client went away: there is nobody to answer."""


@dataclass(eq=False)
class Stream:
    """What comes back for some jobs of one request. Its texts are counted through: `index` says which one an event is of."""

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
    last: dict[int, float] = field(default_factory=dict)  # when each text last went on
    waiter: asyncio.Future | None = None  # of whoever waits for events
    gone: bool = False  # the client is
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

    async def more(self) -> list:
        """New events, none at the end; raises ApiError where the request failed, Gone where the client went away."""
        while True:
            if self.gone:
                raise Gone
            if self.error and not self.events:
                raise self.error
            if self.events or not self.left:
                found, self.events = self.events, []
                return found
            self.waiter = self.client.loop.create_future()
            await self.waiter

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it, and all that came is taken."""
        return not (self.left or self.events or self.error or self.gone)

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def leave(self) -> None:
        """The client went away."""
        self.gone = True
        self.wake()

    def fail(self, error: ApiError) -> None:
        """It ends here, after what came already."""
        if self.left and not self.error:
            self.error = error
            self.client.drop(self)
        self.wake()


class EngineClient:
    """Talks with the worker, which was started. `state` is "loading", "ready", "failed" (it could not load) or "dead".

    watch: told of what happens (`metrics.Metrics`). on_change(state): called in the event loop.
    """

    def __init__(
        self, engine: Process, settings: EngineSettings, watch, on_change: Callable[[str], None] = lambda state: None,
    ):
        self.process, self.end = engine.process, engine.end
        self.settings, self.watch, self.on_change = settings, watch, on_change
        self.state, self.why = "loading", ""
        self.failure: Error | None = None
        self.about: About | None = None
        self.counts = Counts(0.0)
        self.open: dict[int, Stream] = {}
        self.streams: set[Stream] = set()
        self.numbers = itertools.count()

    async def start(self) -> None:
        """Talk with the worker from now on."""
        self.loop = asyncio.get_running_loop()
        self.pipe = await LoopPipe.open(self.end, self._take, self._gone)

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
            self.pipe.send((what, job if what == "submit" else (number, *payload)))
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
                self.pipe.send(("cancel", number))
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

    async def stop(self) -> None:
        """End the worker."""
        if self.state == "loading":
            self.process.kill()  # it does not hear, and has nothing to lose
        if self.state in ("loading", "ready"):
            self.state = "stopped"
        self.pipe.send(("stop", None))
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(5)

    # what comes through the pipe

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
            self._step(events)
            self.watch.step(self.counts)

    def _step(self, events: list) -> None:
        now, written, gaps, woken = self.counts.time, 0, {}, {}
        for event in events:
            text = type(event) is tuple
            stream = self.open.get(event[0] if text else event.number)
            if stream is None:
                continue
            woken[stream] = None
            if not text:
                self._event(stream, event)
                continue
            event = Text._make(event)
            if stream.first_token is None:
                stream.first_token = now
            n = len(event.ids)
            if n:
                index = stream.index(event)
                before = stream.last.get(index)
                if before is not None:
                    gap = (now - before) / n
                    gaps[gap] = gaps.get(gap, 0) + 1
                elif not stream.last:
                    self.watch.began(stream, now)
                stream.last[index] = now
                stream.written += n
                written += n
            if len(stream.events) < BEHIND:
                stream.events.append(event)
            else:
                stream.fail(ApiError(500, "the client does not read its answer", reason="slow_client"))
        if written:
            self.watch.wrote(written, gaps, now)
        for stream in woken:
            stream.wake()

    def _event(self, stream: Stream, event) -> None:
        if isinstance(event, Started):
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

    def _gone(self) -> None:
        self.ending = asyncio.ensure_future(self._died())

    async def _died(self) -> None:
        if self.state in ("stopped", "failed"):
            return
        await asyncio.to_thread(self.process.join)
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
