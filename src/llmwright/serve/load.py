"""Many streaming requests at once, and when each piece of their answers came.

The client shares the cores with the server that it measures, so it does next to nothing while answers come: one
`select`, one `recv`, the time beside the bytes. What the bytes say is read when all of them are here. Any server of
OpenAI's /v1/completions can be asked.
"""

import heapq
import http.client
import json
import re
import selectors
import socket
import ssl
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from urllib.parse import urlsplit

from ..errors import RequestError, WorkError

SILENCE = 300.0  # seconds without a byte from any stream, after which those that are open are given up
LONGEST = 1800.0  # seconds after the last request was due, after which those that are open are given up
HEXADECIMAL = b"0123456789abcdefABCDEF"
LAST_CHUNK = b"0\r\n\r\n"
END_OF_EVENT = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True)
class Target:
    """A server. `path`: what stands before /v1, for one that is not at the root of its host."""

    scheme: str
    host: str
    port: int
    path: str = ""
    key: str | None = None

    @classmethod
    def of(cls, url: str, key: str | None = None) -> "Target":
        """Raises RequestError for what is no address of a server."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts = port = None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise RequestError(f"url {url!r} is no address of a server: http://localhost:8000 is one")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise RequestError("an API key holds characters that a header cannot carry")
        path = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), path, key)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}{self.path}"

    def ask(self, method: str, path: str, body: dict | None = None, seconds: float = 600) -> tuple[int, dict]:
        """(status, JSON) of a plain request. Raises WorkError where no answer comes."""
        kind = http.client.HTTPSConnection if self.scheme == "https" else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=seconds)
        try:
            connection.request(method, self.path + path, body and json.dumps(body), self.headers)
            answer = connection.getresponse()
            status, content = answer.status, answer.read()
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            raise self.unreachable(error) from None
        finally:
            connection.close()
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        return status, found if isinstance(found, dict) else {}

    def connect(self) -> socket.socket:
        """Raises WorkError."""
        try:
            made = socket.create_connection((self.host, self.port), timeout=SILENCE)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.scheme == "https":
                made = ssl.create_default_context().wrap_socket(made, server_hostname=self.host)
        except (OSError, UnicodeError) as error:  # a name that cannot be one is a UnicodeError
            raise self.unreachable(error) from None
        return made

    def unreachable(self, error: Exception) -> WorkError:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return WorkError(f"{self.url} cannot be reached ({why}): is a server running there?")

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", **({"Authorization": f"Bearer {self.key}"} if self.key else {})}

    def request(self, body: dict) -> bytes:
        """A POST to /v1/completions, after which the server closes the connection."""
        content = json.dumps(body, separators=(",", ":")).encode()
        lines = [f"POST {self.path}/v1/completions HTTP/1.1", f"Host: {self.host}:{self.port}", "Connection: close",
                 f"Content-Length: {len(content)}", *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@dataclass
class Answer:
    """What came of one request; times in seconds from the run's begin. `due`: when it was sent, or should have been;
    `times`: of each piece of text; `tokens`: written, as the server says, or as many as there were pieces; `cached`: of
    the prompt's tokens, found in a prefix cache; `error`: why it failed."""

    due: float
    times: list[float] = field(default_factory=list)
    end: float = 0.0
    tokens: int = 0
    prompt_tokens: int = 0
    cached: int = 0
    finish: str | None = None
    status: int = 0
    error: str | None = None

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.times[0] - self.due

    @property
    def latency(self) -> float:
        return self.end - self.due

    @property
    def gaps(self) -> list[float]:
        """Seconds between its pieces."""
        return [b - a for a, b in zip(self.times, self.times[1:])]

    @property
    def rate(self) -> float | None:
        """Tokens a second after the first; None where there are no two."""
        writing = self.times[-1] - self.times[0] if self.times else 0
        return (self.tokens - 1) / writing if writing > 0 and self.tokens > 1 else None

    def tokens_between(self, begin: float, end: float) -> float:
        """Tokens that came after `begin` and until `end`; those of a piece that stands for several come with it."""
        inside = sum(begin < t <= end for t in self.times)
        return inside * self.tokens / len(self.times) if self.times else 0.0


@dataclass(frozen=True)
class Run:
    """`answers` in the order of what was asked, `seconds` it took, `cpu` seconds that this client computed."""

    answers: list[Answer]
    seconds: float
    cpu: float


class _Call:
    """A request on its way."""

    def __init__(self, due: float):
        self.due, self.parts, self.times, self.error = due, [], [], None


def run(target: Target, asks: Iterable[tuple[float, dict]], done: Callable[[], None] = lambda: None) -> Run:
    """Send each body of `asks` at its time, in seconds from now, and wait for all answers. Bodies have "stream": true.
    `done()` is called after each answer.

    What is due at once has its connection before the clock begins. Raises WorkError where no connection can be had.
    """
    waiting = [(due, i, target.request(body)) for i, (due, body) in enumerate(asks)]
    heapq.heapify(waiting)
    last = max((due for due, *_ in waiting), default=0.0)
    calls: list[_Call | None] = [None] * len(waiting)
    ready = {i: target.connect() for due, i, _ in waiting if due <= 0}
    selector, left = selectors.DefaultSelector(), set()
    try:
        begin, cpu, clock = time.perf_counter(), time.process_time(), time.perf_counter
        while waiting or left:
            now = clock() - begin
            while waiting and waiting[0][0] <= now:
                due, i, request = heapq.heappop(waiting)
                connection = ready.pop(i, None) or target.connect()
                left.add(connection)
                calls[i] = _Call(max(due, 0.0) if due > 0 else clock() - begin)
                try:
                    connection.sendall(request)
                except OSError as error:  # it may have answered and closed already: that is read below
                    calls[i].error = str(error)
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_READ, calls[i])
            found = selector.select(max(0.0, waiting[0][0] - (clock() - begin)) if waiting else SILENCE)
            for key, _ in found:
                if not _receive(key.fileobj, key.data, begin):
                    selector.unregister(key.fileobj)
                    left.discard(key.fileobj)
                    key.fileobj.close()
                    done()
            endless = not waiting and clock() - begin > last + LONGEST
            if endless or (not found and not waiting):
                why = f"no end of it after {LONGEST:.0f} seconds" if endless else f"nothing came for {SILENCE:.0f} seconds"
                for key in list(selector.get_map().values()):
                    key.data.error = why
                break
        seconds, cpu = clock() - begin, time.process_time() - cpu
    finally:
        selector.close()
        for connection in (*left, *ready.values()):
            connection.close()
    return Run([_read(call) for call in calls], seconds, cpu)


def _receive(connection: socket.socket, call: _Call, begin: float) -> bool:
    """Take what came; whether more may."""
    try:
        data = connection.recv(1 << 16)
        while getattr(connection, "pending", int)():
            data += connection.recv(1 << 16)
    except (ssl.SSLWantReadError, BlockingIOError):
        return True
    except OSError as error:
        call.error, data = str(error), b""
    call.times.append(time.perf_counter() - begin)
    call.parts.append(data)
    return bool(data) and not data.endswith(LAST_CHUNK)


def _read(call: _Call) -> Answer:
    """What the bytes of an answer say."""
    answer = Answer(call.due, end=call.times[-1] if call.times else call.due, error=call.error)
    raw = b"".join(call.parts)
    head, _, _ = raw.partition(b"\r\n\r\n")
    status, _, fields = head.decode("latin-1").partition("\r\n")
    words = status.split(" ", 2)
    if len(words) < 2 or not words[1].isdecimal():
        answer.error = answer.error or "the server closed the connection without an answer"
        return answer
    answer.status = int(words[1])
    names = {name.strip().lower(): value.strip().lower() for name, _, value in
             (line.partition(":") for line in fields.split("\r\n"))}
    begin = min(len(head) + 4, len(raw))
    chunks = list(_chunks(raw, begin)) if names.get("transfer-encoding") == "chunked" else [(begin, len(raw))]
    body = b"".join(raw[a:b] for a, b in chunks)
    if answer.status != 200:
        answer.error = f"{answer.status}: {message(body)}"
        return answer
    try:
        _events(answer, body, _clock(call, chunks))
    except (AttributeError, TypeError, ValueError, RecursionError):
        answer.error = "an event of the stream is not one of OpenAI's API"
    return answer


def _chunks(raw: bytes, at: int):
    """(begin, end) in `raw` of the data of each chunk (RFC 9112, section 7.1)."""
    while (end := raw.find(b"\r\n", at)) > 0:
        digits = raw[at:end].split(b";")[0].strip()
        size = int(digits, 16) if digits.isalnum() and len(digits) <= 16 and not digits.strip(HEXADECIMAL) else 0
        if not size:
            return
        yield end + 2, min(end + 2 + size, len(raw))
        at = end + 4 + size


def _clock(call: _Call, chunks: list[tuple[int, int]]) -> Callable[[int], float]:
    """When the byte at a place of the body came."""
    ends = list(accumulate(map(len, call.parts)))
    starts = [0, *accumulate(b - a for a, b in chunks)]

    def when(place: int) -> float:
        i = bisect_right(starts, place) - 1
        return call.times[bisect_right(ends, chunks[i][0] + place - starts[i])]

    return when


def _events(answer: Answer, body: bytes, when: Callable[[int], float]) -> None:
    """Read the server-sent events of a stream into `answer`."""
    at, ended, usage, begun = 0, False, None, []
    for end in END_OF_EVENT.finditer(body):
        block, place, at = body[at : end.start()], end.end() - 1, end.end()
        data = b"\n".join(line[5:].lstrip(b" ") for line in block.splitlines() if line.startswith(b"data:"))
        if data == b"[DONE]":
            ended = True
            continue
        try:
            event = json.loads(data) if data else {}
        except ValueError:
            answer.error = "an event of the stream is no JSON"
            return
        if event.get("error"):
            answer.error = message(data)
            return
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            begun.append(place)
            answer.finish = choice.get("finish_reason") or answer.finish
            if choice.get("text"):
                answer.times.append(when(place))
    if not answer.times and begun:  # tokens that are no text
        answer.times.append(when(begun[0]))
    if usage:
        answer.tokens, answer.prompt_tokens = _count(usage, "completion_tokens"), _count(usage, "prompt_tokens")
        answer.cached = _count(usage.get("prompt_tokens_details") or {}, "cached_tokens")
    else:
        answer.tokens = len(answer.times)
    if not answer.error and not (ended and answer.times):
        answer.error = "the answer broke off" if not ended else "the answer has no text"


def _count(found: dict, name: str) -> int:
    value = found.get(name) or 0
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def message(body: bytes) -> str:
    """What a server says in the body of an error, in one line."""
    try:
        found = json.loads(body)
        found = found.get("error", found) if isinstance(found, dict) else found
        text = found.get("message", found.get("detail", found)) if isinstance(found, dict) else found
        text = text if isinstance(text, str) else json.dumps(text)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace")
    return " ".join(text.split())[:300] or "without a word"
