"""A server whose every byte and pause the test decides: what a load generator says of it is known beforehand."""

import json
import socket
import threading
import time

MODELS = {"object": "list", "data": [{"id": "m", "max_model_len": 512}]}
START = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(text: str | None = None, *, end: bytes = b"\n\n", **more) -> bytes:
    choices = [] if text is None else [{"index": 0, "text": text, "finish_reason": None}]
    return b"data: " + json.dumps({"choices": choices, **more}).encode() + end


def usage(tokens: int, prompt: int = 3) -> dict:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": tokens}}


DONE = b"data: [DONE]\n\n"


def whole(status: int, body: dict) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(data)) + data


class HandServer:
    """`answer(body)` gives what is sent for a completion: bytes, and seconds to wait between them. `asked`: bodies so
    far, each with when it came. Other paths: `/v1/models`; 404 else. `tls`: a context to speak https by."""

    def __init__(self, answer, tls=None):
        self.answer, self.tls, self.asked = answer, tls, []
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        if self.tls:
            try:
                connection = self.tls.wrap_socket(connection, server_side=True)
            except OSError:
                return  # it does not trust this server
        with connection, connection.makefile("rb") as file:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            path, size = file.readline().split()[1], 0
            while (line := file.readline().strip()):
                if line.lower().startswith(b"content-length:"):
                    size = int(line.split(b":")[1])
            if path == b"/v1/models":
                connection.sendall(whole(200, MODELS))
                return
            if path != b"/v1/completions":
                connection.sendall(whole(404, {"error": {"message": "no such path"}}))
                return
            body = json.loads(file.read(size))
            self.asked.append((time.perf_counter(), body))
            for part in self.answer(body):
                if isinstance(part, bytes):
                    try:
                        connection.sendall(part)
                    except OSError:  # who asked has gone
                        return
                else:
                    time.sleep(part)
