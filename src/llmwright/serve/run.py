"""How a server starts: the address is taken, then the engine loads the model in its process, and meanwhile this one
imports what it answers with, which takes a second."""

import asyncio
import socket
from collections.abc import Callable
from importlib.util import find_spec

from ..errors import RequestError
from . import worker
from .settings import EngineSettings, Limits

for _name in ("fastapi", "uvicorn", "prometheus_client"):  # of the extra `serve`; imported when the engine is on its way
    if find_spec(_name) is None:
        raise ModuleNotFoundError(f"No module named {_name!r}", name=_name)


def serve(
    settings: EngineSettings, limits: Limits, *, name: str, host: str = "127.0.0.1", port: int = 8000,
    log_prompts: bool = False, ready: Callable[[str, object], None] = print,
) -> None:
    """Serve until a signal says to stop. `ready(address, about)` is called when requests are
    taken (`worker.About`). Raises RequestError or
    WorkError where the address is taken or the model cannot be loaded."""
    with listen(host, port) as listening:
        engine = worker.start(settings)
        try:
            from .serving import Serving

            _run(Serving(engine, settings, limits, name, log_prompts, ready, host, listening).run())
        finally:
            engine.process.kill()  # it has ended already, unless something went wrong here


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
