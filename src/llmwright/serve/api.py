"""What the routes share: what may be asked of the engine now, and a stream in the hands of one request."""

import asyncio
import time
from contextlib import aclosing

from fastapi import Request
from fastapi.responses import Response

from ..tokens.chat_template import ChatTemplate, find
from .answers import Answer
from .engine_client import EngineClient, Gone, Stream
from .errors import ApiError
from .log import Log
from .metrics import Metrics
from .settings import Limits
from .worker import Job


class Api:
    """`name`: what the model is called here. `draining`: nothing new is taken any more."""

    def __init__(self, client: EngineClient, name: str, limits: Limits, metrics: Metrics, log: Log):
        self.client, self.name, self.limits, self.metrics, self.log = client, name, limits, metrics, log
        self.draining, self.created = False, int(time.time())
        self.streams: dict = {}  # of each key, how many are open

    @property
    def ready(self) -> bool:
        return self.client.state == "ready" and not self.draining

    def template(self) -> ChatTemplate:
        about = self.client.about
        if not hasattr(self, "_template"):
            self._template = find(about.tokenizer, self.name)
        if self._template is None:
            raise ApiError(400, f"{self.name} has no chat template: it goes on with a text (/v1/completions) and was not "
                           "made to answer", code="no_chat_template")
        return self._template

    def check(self, model: str | None, kind: str = "decoder") -> None:
        """Raise ApiError unless a request for this model, which has to be of this kind, can be answered."""
        if self.draining:
            raise ApiError(503, "the server is being stopped", code="draining", headers={"Retry-After": "5"})
        self.client.check()
        if model is not None and model != self.name:
            raise ApiError(404, f"model {model[:100]!r} does not exist here: there is {self.name!r}", param="model",
                           code="model_not_found")
        if kind == "decoder" and self.client.about.kind != "decoder":
            raise ApiError(400, f"{self.name} is an encoder: it has /v1/embeddings and writes no text", param="model",
                           code="wrong_model")
        if kind == "encoder" and self.client.about.kind != "encoder":
            raise ApiError(400, f"{self.name} is a {self.client.about.kind}: embeddings come from an encoder", param="model",
                           code="wrong_model")

    def admit(self, texts: int, request: Request) -> None:
        """Raise ApiError unless there is room for so many texts. Asked before any work is done for a request."""
        record, most = request.scope["llmwright"], self.client.settings.max_texts
        if texts > most + self.limits.queue:
            raise ApiError(400, f"{texts:,} texts in one request: this server takes {most + self.limits.queue:,} in all",
                           param="n")
        key, open_ = record.key, self.streams.get(record.key, 0)
        if key is not None and open_ >= self.limits.streams_per_key:
            raise ApiError(429, f"this key has {open_:,} requests running, as many as it may: try again when one is done",
                           code="too_many_streams", reason="streams_per_key", headers={"Retry-After": "1"})
        if self.client.texts + texts > most + self.limits.queue:
            raise ApiError(429, f"the queue is full: {most:,} texts are written at a time and {self.limits.queue:,} wait",
                           code="queue_full", reason="queue_full", headers={"Retry-After": "1"})

    def submit(self, made: list[Job], request: Request, *what) -> Stream:
        """Into the engine's queue."""
        self.check(None, "any")
        self.admit(sum(job.n for job in made), request)  # others may have come meanwhile
        stream = self.client.submit(made, self.limits.request_seconds, *what)
        key = request.scope["llmwright"].key
        self.streams[key] = self.streams.get(key, 0) + 1
        return stream

    def close(self, stream: Stream, request: Request, finish: list[str | None]) -> None:
        """It is over, in whatever way; what is not done of it is cancelled. `finish`: why each of its texts ended."""
        record = request.scope["llmwright"]
        self.streams[record.key] -= 1
        if not self.streams[record.key]:
            del self.streams[record.key]
        whole = not stream.left and not stream.error
        record.engine(stream, finish)
        if whole:
            self.metrics.finished(stream, [reason for reason in finish if reason])
        elif stream.error:
            record.reason = stream.error.reason
            record.error = stream.error.detail
        else:
            record.reason = "disconnected"
        self.client.close(stream)


class Handed:
    """A stream in the hands of one request: `async with` gives it back, whatever happens; so does the client by going away,
    and whoever waits for the stream then gets Gone."""

    def __init__(self, api: Api, stream: Stream, request: Request, answer: Answer | None = None):
        self.api, self.stream, self.request, self.answer, self.closed = api, stream, request, answer, False
        self.watcher = asyncio.ensure_future(self._watch())

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.watcher.cancel()
            finish = [choice.finish for choice in self.answer.choices] if self.answer else []
            if self.answer:
                self.request.scope["llmwright"].content["text"] = [choice.text for choice in self.answer.choices]
            self.api.close(self.stream, self.request, finish)

    async def _watch(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass
        self.stream.leave()
        self.close()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.close()


class EventStream(Response):
    """Server-sent events from `parts`, an asynchronous generator, which is closed when the client goes away."""

    def __init__(self, parts, handed: Handed):
        self.parts, self.handed, self.status_code = parts, handed, 200
        self.background = None
        self.init_headers({"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache",
                           "x-accel-buffering": "no"})

    async def __call__(self, scope, receive, send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            # A task of its own, and the server's own `send`: else each piece would pass through all the layers that only
            # look at how an answer begins.
            await asyncio.ensure_future(self._write(scope["llmwright.send"]))
        except Gone:
            pass
        finally:
            self.handed.close()

    async def _write(self, send) -> None:
        async with aclosing(self.parts) as parts:
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
