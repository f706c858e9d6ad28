"""A server from its start to its end: the address is taken before the model is loaded, and what runs is finished before
the process ends."""

import asyncio
import contextlib
import gc
import signal
import socket
import time
from collections.abc import Callable

import uvicorn

from ..errors import RequestError
from .api import Api
from .app import create
from .engine_client import EngineClient
from .errors import ApiError
from .log import Log
from .metrics import Metrics
from .settings import EngineSettings, Limits

FLUSH_SECONDS = 5  # for connections to take what was written, when all answers are done


def serve(
    settings: EngineSettings, limits: Limits, *, name: str, host: str = "127.0.0.1", port: int = 8000,
    log_prompts: bool = False, ready: Callable[[str], None] = print,
) -> None:
    """Serve until a signal says to stop. `ready(address)` is called when requests are taken. Raises RequestError or
    WorkError where the address is taken or the model cannot be loaded."""
    with listen(host, port) as listening:
        _run(_Serving(settings, limits, name, log_prompts, ready, host, listening).run())


def _run(main) -> None:
    """`asyncio.run`, with uvloop's event loop where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def listen(host: str, port: int) -> socket.socket:
    """A socket at that address. Raises RequestError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        made = socket.socket(family, kind, protocol)  # asyncio sends at once only where it is told that this is TCP
    except (OSError, OverflowError, UnicodeError) as error:
        raise RequestError(f"host {host!r} is no address of this machine: {getattr(error, 'strerror', error)}") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(2048)
    except OSError as error:
        made.close()
        raise RequestError(f"port {port} of {host} cannot be taken ({error.strerror}): give another with --port "
                           "(0: any that is free)") from None
    return made


class _Uvicorn(uvicorn.Server):
    """Without its own way with signals: it would close the door before what runs is done."""

    def capture_signals(self):
        return contextlib.nullcontext()


class _Serving:
    def __init__(self, settings, limits: Limits, name: str, log_prompts: bool, ready, host: str, listening):
        self.limits, self.ready, self.listening = limits, ready, listening
        shown = "localhost" if host in ("", "0.0.0.0", "::", "127.0.0.1", "::1") else f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{listening.getsockname()[1]}"
        metrics, self.log = Metrics(name), Log(prompts=log_prompts)
        self.client = metrics.client = EngineClient(settings, metrics, self.changed)
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
            self.ready(self.address)
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

