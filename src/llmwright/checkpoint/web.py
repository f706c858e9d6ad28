"""Reaching a server: HTTP with the proxies and certificates of the environment, and errors in words for people."""

import errno
import hashlib
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..progress import amount

CHUNK = 1 << 16  # bytes; what a broken connection can lose
SILENCE = (15, 60)  # seconds to connect, seconds without a byte


class Unreachable(Exception):
    """A source does not give the file; the message says why, for people."""


class Lost(Exception):
    """The connection broke, or the server asks to come again: worth another try."""


@dataclass(frozen=True)
class Item:
    """One file to bring: from `url`, `bytes` long, whose digest by `algorithm` is `digest`: sha256, or git, which is
    SHA-1 of "blob", the size and the content."""

    name: str
    url: str
    bytes: int
    digest: str
    algorithm: str = "sha256"
    headers: dict = field(default_factory=dict)

    def hasher(self):
        if self.algorithm == "git":
            return hashlib.sha1(b"blob %d\0" % self.bytes, usedforsecurity=False)
        return hashlib.sha256()


class Web:
    """HTTP with the proxies and certificates of the environment; `file:` addresses too, for mirrors on a disk."""

    def __init__(self, *, certificates: str | None = None, proxy: str | None = None, trusted: tuple[str, ...] = ()):
        import requests

        self.session = requests.Session()
        self.session.headers["User-Agent"] = "llmwright"
        self.trusted = trusted  # hosts whose certificate is not asked for
        self.certificates = certificates
        if proxy:
            self.session.proxies = {"http": proxy, "https": proxy}
        if not certificates:
            self._trust_the_system()

    def _trust_the_system(self) -> None:
        """Take the system's certificates beside those that requests brings, as pip does."""
        try:
            import ssl

            import truststore
        except ImportError:
            return
        from requests.adapters import HTTPAdapter

        class Adapter(HTTPAdapter):
            def init_poolmanager(self, *args, **kwargs):
                return super().init_poolmanager(*args, ssl_context=made(), **kwargs)

            def proxy_manager_for(self, proxy, **kwargs):
                return super().proxy_manager_for(proxy, ssl_context=made(), **kwargs)

        def made():
            return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

        self.session.mount("https://", Adapter())
        for host in self.trusted:  # that context does not let itself be told to trust
            self.session.mount(f"https://{host}", HTTPAdapter())

    def get(self, url: str, headers: dict | None = None):
        """A `requests` response whose body is still to come. Raises Unreachable."""
        import requests

        verify = False if urlsplit(url).hostname in self.trusted else self.certificates or True
        # an Authorization header of ours is not to be replaced by one from ~/.netrc
        auth = (lambda request: request) if any(name.lower() == "authorization" for name in headers or ()) else None
        try:
            return self.session.get(url, headers=headers, stream=True, timeout=SILENCE, verify=verify, auth=auth)
        except (requests.exceptions.SSLError, requests.exceptions.ProxyError) as error:
            raise Unreachable(reason(error)) from None
        except (requests.ConnectionError, requests.Timeout) as error:
            raise Lost(reason(error)) from None
        except (requests.RequestException, OSError, ValueError) as error:
            raise Unreachable(reason(error)) from None

    def page(self, url: str, headers: dict, limit: int = 50_000_000) -> tuple[bytes, str, str]:
        """(content, its type, the address after redirects) of a page of at most `limit` bytes. Raises Unreachable."""
        if url.startswith("file:"):
            try:
                return (_local(url) / "index.html").read_bytes(), "text/html", url
            except OSError as error:
                raise Unreachable("is not there" if error.errno == errno.ENOENT else str(error.strerror)) from None
        try:
            with closing(self.get(url, headers)) as answer:
                if answer.status_code != 200:
                    raise Unreachable(status(answer))
                content = b""
                for chunk in answer.iter_content(CHUNK):
                    content += chunk
                    if len(content) > limit:
                        raise Unreachable(f"sends more than {amount(limit, 'B')} for a list of files")
                return content, answer.headers.get("Content-Type", ""), answer.url
        except Lost as error:
            raise Unreachable(str(error)) from None
        except OSError as error:  # requests' errors are OSErrors
            raise Unreachable(reason(error)) from None

    def stream(self, item: Item, start: int) -> tuple[int, Iterator[bytes]]:
        """The file from byte `start` on, or from its beginning where the server knows no ranges: (first byte, chunks).

        Raises Unreachable, or Lost where another try may help.
        """
        if item.url.startswith("file:"):
            return start, _read(_local(item.url), start)
        headers = {**item.headers, "Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        answer = self.get(item.url, headers)
        if answer.status_code == 206 and start:
            said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
            if not said or int(said[1]) != start or said[2] not in ("*", str(item.bytes)):
                answer.close()
                if said and said[2] != str(item.bytes):
                    raise Unreachable(f"holds another file: {int(said[2]):,} bytes instead of {item.bytes:,}")
                raise Lost("answers with another part of the file")
            return start, _body(answer)
        if answer.status_code in (200, 206):
            length = answer.headers.get("Content-Length")
            if length and not answer.headers.get("Content-Encoding") and length != str(item.bytes):
                answer.close()
                raise Unreachable(f"holds another file: {int(length):,} bytes instead of {item.bytes:,}")
            return 0, _body(answer)
        answer.close()
        if answer.status_code in (408, 429) or answer.status_code >= 500:
            raise Lost(status(answer))
        raise Unreachable(status(answer))


def _body(answer) -> Iterator[bytes]:
    import requests

    try:
        with closing(answer):
            yield from answer.iter_content(CHUNK)
    except (requests.RequestException, OSError) as error:
        raise Lost(reason(error)) from None


def _local(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


def _read(path: Path, start: int) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise Unreachable(f"{path}: {error.strerror}") from None


def status(answer) -> str:
    return f"answers {answer.status_code} {answer.reason or ''}".rstrip()


def reason(error: BaseException) -> str:
    """A network error in a few words."""
    text = f"{type(error).__name__} {error}"
    known = (
        (r"Name or service not known|nodename nor servname|getaddrinfo|name resolution|Failed to resolve",
         "its name is not known here: no network, or none that leads there"),
        (r"CERTIFICATE_VERIFY_FAILED|SSLError|certificate", "its certificate is not trusted (behind a proxy that "
         "has its own, set REQUESTS_CA_BUNDLE, SSL_CERT_FILE or pip's cert)"),
        (r"ProxyError|Unable to connect to proxy|Tunnel connection failed", "the proxy does not let it through"),
        (r"[Cc]onnection refused", "it refuses the connection"),
        (r"unreachable|No route", "no way leads there"),
        (r"[Tt]imed? ?out|Timeout", "it does not answer in time"),
        (r"IncompleteRead|RemoteDisconnected|[Cc]onnection (was )?(broken|reset|aborted)|Connection aborted",
         "the connection broke"),
    )
    for pattern, said in known:
        if re.search(pattern, text):
            return said
    return " ".join(text.split())[:200]
