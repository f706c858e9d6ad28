"""Messages between the server and its engine: pickled, each behind its length, through a pair of sockets.

The engine's end waits; the server's end belongs to its event loop, so no thread stands between a step and those who wait
for it. What the server sends never blocks it: its end keeps what the other does not take yet.
"""

import asyncio
import pickle
import select
import socket
from collections.abc import Callable

LENGTH = 8  # bytes before each message that say how long it is


def framed(message) -> bytes:
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return len(data).to_bytes(LENGTH, "big") + data


class Pipe:
    """The end that waits. `recv` and `send` raise EOFError or OSError where the other end is gone."""

    def __init__(self, end: socket.socket):
        self.socket = end
        end.setblocking(True)
        self.ready = select.poll()
        self.ready.register(end, select.POLLIN)

    def poll(self, seconds: float | None = 0.0) -> bool:
        """Whether there is something to read; None waits until there is."""
        return bool(self.ready.poll(None if seconds is None else 1000 * seconds))

    def recv(self):
        return pickle.loads(self._read(int.from_bytes(self._read(LENGTH), "big")))

    def send(self, message) -> None:
        self.socket.sendall(framed(message))

    def _read(self, size: int) -> bytearray:
        found = bytearray()
        while len(found) < size:
            part = self.socket.recv(size - len(found))
            if not part:
                raise EOFError
            found += part
        return found


class LoopPipe(asyncio.Protocol):
    """The event loop's end: `take(message)` is called for each message, `gone()` when the other end is."""

    def __init__(self, take: Callable, gone: Callable[[], None]):
        self.take, self.gone, self.come, self.transport = take, gone, bytearray(), None

    @classmethod
    async def open(cls, end: socket.socket, take: Callable, gone: Callable[[], None]) -> "LoopPipe":
        _, made = await asyncio.get_running_loop().create_unix_connection(lambda: cls(take, gone), sock=end)
        return made

    def connection_made(self, transport) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.gone()

    def data_received(self, data: bytes) -> None:
        self.come += data
        at = 0
        while len(self.come) >= at + LENGTH:
            end = at + LENGTH + int.from_bytes(self.come[at : at + LENGTH], "big")
            if len(self.come) < end:
                break
            message = pickle.loads(self.come[at + LENGTH : end])
            at = end
            try:
                self.take(message)
            except Exception as error:  # a defect; what comes after it still counts
                loop = asyncio.get_running_loop()
                loop.call_exception_handler({"message": "a message of the engine", "exception": error})
        del self.come[:at]

    def send(self, message) -> None:
        if not self.transport.is_closing():
            self.transport.write(framed(message))
