"""The door of the server: what every request passes before the API sees it.

Who may (keys, compared in constant time), how large a body may be and how long it may take to come, that it is JSON, a
number for each request, and its line in the log. Plain ASGI, so that a stream's pieces pass through without a stop.
"""

import asyncio
import hmac
import re
import traceback

from .errors import encoded, reason_of
from .log import Log, Record, fresh_name
from .metrics import Metrics
from .settings import Limits

OPEN = ("/", "/health", "/ready", "/metrics", "/docs", "/openapi.json")  # without a key, and not logged where they succeed
ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class Gate:
    def __init__(self, app, limits: Limits, metrics: Metrics, log: Log):
        self.app, self.limits, self.metrics, self.log = app, limits, metrics, log
        self.keys = [key.encode() for key in limits.keys]

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1000})
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        name = given.decode() if ID.fullmatch(given) else fresh_name()
        scope["llmwright.send"] = send
        record = scope["llmwright"] = Record(name, scope["method"], scope["path"][:200])
        begun = False

        async def answer(message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun, record.status = True, message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", name.encode()),
                                                  (b"x-content-type-options", b"nosniff")]}
            await send(message)

        try:
            refused = self._key(scope, headers, record)
            if refused is None and scope["method"] in ("POST", "PUT", "PATCH"):
                refused, receive = await self._body(headers, receive)
            if refused:
                await _send(answer, *refused, record=record)
            else:
                await self.app(scope, receive, answer)
        except Exception as error:  # a defect: the client gets one line, the log the rest
            record.reason = "defect"
            self.log.write({"event": "defect", "id": name, "traceback": traceback.format_exc()})
            if not begun:
                await _send(answer, 500, f"a defect of the server ({type(error).__name__})", record=record)
        finally:
            if record.status and record.status >= 400 and not record.reason:
                record.reason = reason_of(record.status)
            probe = scope["path"] in ("/health", "/ready")  # asked to be told no
            if record.reason and not probe:
                self.metrics.failure(record.reason)
            if scope["path"] not in OPEN or (record.reason and not probe):
                self.log.request(record)

    def _key(self, scope, headers: dict, record: Record):
        """(status, message, …) where the request may not pass."""
        if not self.keys or scope["path"] in OPEN or scope["method"] == "OPTIONS":
            return None
        kind, _, key = headers.get(b"authorization", b"").partition(b" ")
        key = key.strip() if kind.lower() == b"bearer" else b""
        found = [i for i, known in enumerate(self.keys) if hmac.compare_digest(known, key)]  # all of them, always
        if not found:
            what = "the API key is not known" if key else "an API key is needed: Authorization: Bearer KEY"
            return 401, what, "invalid_api_key"
        record.key = found[0]
        return None

    async def _body(self, headers: dict, receive):
        """The whole body, read before the API sees it: (why it is refused or None, what to receive from)."""
        limit = self.limits.body_bytes
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":  # also keeps other sites' pages from using a server on this machine
            return (415, "the body has to be JSON: send the header Content-Type: application/json", None), receive
        length = headers.get(b"content-length", b"0")
        too_large = (413, f"the body is larger than {limit:,} bytes", "body_too_large"), receive
        if length.isdigit() and len(length) < 20 and int(length) > limit:
            return too_large
        parts, size = [], 0
        try:
            async def read() -> bool:
                nonlocal size
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return False
                    size += len(message.get("body", b""))
                    if size > limit:
                        return True
                    parts.append(message.get("body", b""))
                    if not message.get("more_body"):
                        return True

            whole = await asyncio.wait_for(read(), self.limits.body_seconds)
        except asyncio.TimeoutError:
            return (408, f"the body did not arrive within {self.limits.body_seconds:g} seconds", "timeout"), receive
        if size > limit:
            return too_large
        pending = [{"type": "http.request", "body": b"".join(parts), "more_body": False} if whole
                   else {"type": "http.disconnect"}]

        async def again():
            return pending.pop() if pending else await receive()

        return None, again


async def _send(send, status: int, message: str, code: str | None = None, *, record: Record) -> None:
    record.error = message
    content = encoded(status, message, code=code)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if status in (408, 413):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
