"""A Hugging Face Hub on the loopback: serves datasets of real parquet files as the real one does (the listing with
sizes and hashes, `resolve` with a redirect to another address, byte ranges), and fails on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit


@dataclass
class Trouble:
    """What goes wrong with one request.

    Attributes:
        status: An error to answer with, or 200 to send content.
        headers: To send along with it.
        breaks_after: Bytes after which the connection is cut.
        sends: Content to send in place of the real one, as if it were all.
        hangs: Set when the request has sent `breaks_after` bytes; then it sends no more and keeps the connection.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    breaks_after: int | None = None
    sends: bytes | None = None
    hangs: threading.Event | None = None


@dataclass
class Hub:
    """The server's state, for tests to set and read.

    Attributes:
        datasets: Content by path, by name of the dataset.
        troubles: What goes wrong with the next requests whose address ends so.
        requests: Method, address and `Range` of each request for content or a listing.
        authorized: Addresses that a request with a token came for.
        storage: Where it sends those who ask for content, as the real one sends them to another host.
    """

    url: str = ""
    storage: str = ""
    datasets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    troubles: dict[str, list[Trouble]] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    authorized: list[str] = field(default_factory=list)

    def add(self, dataset: str, folder: Path, **names: str) -> None:
        """Serve the parquet files of a folder; `names` gives some of them (by stem) other places."""
        self.datasets[dataset] = {
            names.get(path.stem, path.name): path.read_bytes() for path in sorted(folder.glob("*.parquet"))
        } | {"README.md": b"# A dataset"}

    def commit(self, dataset: str) -> str:
        """Changes with the content, as git's does."""
        return hashlib.sha1(b"".join(self.datasets[dataset].values())).hexdigest()

    def ranges(self, name: str) -> list[str | None]:
        """The ranges of the requests for a file's content, in order."""
        return [asked for _, address, asked in self.requests if address.startswith("/content/") and name in address]

    def trouble(self, address: str) -> Trouble:
        for end, waiting in self.troubles.items():
            if address.endswith(end) and waiting:
                return waiting.pop(0)
        return Trouble()


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that listens as long as the context lasts."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    hub.url, hub.storage = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def do_GET(self) -> None:
        address = urlsplit(self.path).path
        if "Authorization" in self.headers:
            self.state.authorized.append(address)
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(/revision/.+)?", address):
            self.state.requests.append((self.command, address, None))
            self._listing(match[1], unquote((match[2] or "/revision/main").removeprefix("/revision/")))
        elif match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", address):
            self._resolve(match[1], match[2], unquote(match[3]))
        elif match := re.fullmatch(r"/content/([^/]+/[^/]+)/(.+)", address):
            self.state.requests.append((self.command, address, self.headers.get("Range")))
            self._content(self.state.datasets[match[1]][unquote(match[2])])
        else:
            self._answer(404, {}, b"{}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _listing(self, dataset: str, revision: str) -> None:
        trouble = self.state.trouble(dataset)
        if trouble.status != 200 or trouble.sends is not None:
            return self._answer(trouble.status, trouble.headers, trouble.sends or b'{"error": "trouble"}')
        if dataset not in self.state.datasets:
            return self._answer(404, {"X-Error-Code": "RepoNotFound"}, b'{"error": "Repository not found"}')
        commit = self.state.commit(dataset)
        if revision not in ("main", commit):
            return self._answer(404, {"X-Error-Code": "RevisionNotFound"}, b'{"error": "Invalid rev id"}')
        siblings = [_sibling(path, content) for path, content in self.state.datasets[dataset].items()]
        return self._answer(200, {}, json.dumps({"id": dataset, "sha": commit, "siblings": siblings}).encode())

    def _resolve(self, dataset: str, commit: str, path: str) -> None:
        content = self.state.datasets.get(dataset, {}).get(path)
        if content is None or commit != self.state.commit(dataset):
            return self._answer(404, {"X-Error-Code": "EntryNotFound"}, b'{"error": "Entry not found"}')
        facts = {
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(len(content)),
            "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Location": f"{self.state.storage}/content/{dataset}/{quote(path)}",
        }
        return self._answer(302, facts, b"")

    def _content(self, content: bytes) -> None:
        trouble = self.state.trouble(self.path)
        if trouble.status != 200:
            return self._answer(trouble.status, trouble.headers, b"trouble")
        content = content if trouble.sends is None else trouble.sends
        status, headers = 200, {}
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(asked[1])
            if start >= len(content):
                return self._answer(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            status, headers = 206, {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            content = content[start:]
        if trouble.breaks_after is None:
            return self._answer(status, headers, content)
        self._answer(status, headers | {"Content-Length": str(len(content))}, content[: trouble.breaks_after])
        self.wfile.flush()
        if trouble.hangs:
            trouble.hangs.set()
            self.rfile.read(1)
        self.close_connection = True
        return None

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_request(self, *arguments: object) -> None:
        """Nothing: a test says what it needs to."""


def _sibling(path: str, content: bytes) -> dict[str, object]:
    """As the real hub describes a file: large ones by their SHA-256, those that git itself holds by git's name."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    described: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": blob}
    if path.endswith(".parquet") and not path.startswith("in-git"):
        lfs = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 134}
        described["lfs"] = lfs
    return described
