"""A server while it runs: it takes requests once the model is loaded, and when it is told to stop it finishes what runs."""

import asyncio
import contextlib
import gc
import signal
import time

import uvicorn

from .api import Api
from .app import create
from .engine_client import EngineClient
from .errors import ApiError
from .log import Log
from .metrics import Metrics
from .settings import Limits

FLUSH_SECONDS = 5  # for connections to take what was written, when all answers are done


class _Uvicorn(uvicorn.Server):
    """Without its own way with signals: it would close the door before what runs is done."""

    def capture_signals(self):
        return contextlib.nullcontext()


class Serving:
    def __init__(self, engine, settings, limits: Limits, name: str, log_prompts: bool, ready, host: str, listening):
        self.limits, self.ready, self.listening = limits, ready, listening
        shown = "localhost" if host in ("", "0.0.0.0", "::", "127.0.0.1", "::1") else f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{listening.getsockname()[1]}"
        metrics, self.log = Metrics(name), Log(prompts=log_prompts)
        self.client = metrics.client = EngineClient(engine, settings, metrics, self.changed)
        self.api = Api(self.client, name, limits, metrics, self.log)
        self.uvicorn = _Uvicorn(uvicorn.Config(
            create(self.api), log_level="critical", access_log=False, lifespan="off", server_header=False, ws="none",
            proxy_headers=False, timeout_graceful_shutdown=FLUSH_SECONDS, timeout_keep_alive=30,
        ))

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        await self.client.start()
        try:
            await self.uvicorn.serve(sockets=[self.listening])
        finally:
            await self.client.stop()
        if self.client.failure:
            raise self.client.failure

    def changed(self, state: str) -> None:
        if state == "ready":
            gc.collect()
            gc.freeze()  # what is loaded stays: it is not looked through again while answers wait
            self.ready(self.address, self.client.about)
        elif self.client.failure:
            self.uvicorn.should_exit = True
        else:
            self.log.write({"event": "engine_died", "message": self.client.why})

    def stop(self) -> None:
        """The first signal lets what runs finish; the second does not."""
        if self.api.draining or self.client.state != "ready":
            self.client.fail_all(ApiError(503, "the server is being stopped", code="draining"))
            self.uvicorn.should_exit = True
            return
        self.api.draining = True
        self.draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        self.log.write({"event": "draining", "running": len(self.client.streams)})
        end = time.monotonic() + self.limits.drain_seconds
        while self.client.streams and time.monotonic() < end:
            await asyncio.sleep(0.02)
        self.client.fail_all(ApiError(503, "the server is being stopped", code="draining"))
        self.uvicorn.should_exit = True

