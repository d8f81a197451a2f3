"""A web server whose images have entity tags, or times, or nothing that says whether they changed; it counts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

LONG_AGO = 1_600_000_000.0


@dataclass
class TaggedImages:
    """What it serves, by path.  A path below /tag/ has an ETag, one below /time/ a Last-Modified, others neither."""

    images: dict[str, bytes] = field(default_factory=dict)
    changed: dict[str, float] = field(default_factory=dict)
    """When an image changed, seconds since 1970."""
    answers: Counter[int] = field(default_factory=Counter)
    sent: int = 0
    """Bytes of answers, heads and images."""
    asked: list[str] = field(default_factory=list)
    port: int = 0
    lock: Lock = field(default_factory=Lock)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def begin(self) -> None:
        """Count anew."""
        self.answers.clear()
        self.asked.clear()
        self.sent = 0

    def answer(self, path: str, tag: str | None, since: str | None) -> bytes:
        """The whole answer to a request with these conditions."""
        image = self.images.get(path)
        if image is None:
            return _answer("404 Not Found", {}, b"none")
        headers = {"Cache-Control": "max-age=3600"}
        if path.startswith("/tag/"):
            headers["ETag"] = f'"{hashlib.sha256(image).hexdigest()[:16]}"'
        if path.startswith("/time/"):
            headers["Last-Modified"] = formatdate(self.changed.get(path, LONG_AGO), usegmt=True)
        if tag is not None and tag == headers.get("ETag"):
            return _answer("304 Not Modified", headers, None)
        if tag is None and since is not None and since == headers.get("Last-Modified"):
            return _answer("304 Not Modified", headers, None)
        return _answer("200 OK", {**headers, "Content-Type": "image/png"}, image)


def _answer(status: str, headers: dict[str, str], body: bytes | None) -> bytes:
    if body is not None:
        headers = {**headers, "Content-Length": str(len(body))}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


@contextmanager
def serving() -> Iterator[TaggedImages]:
    """The server, on a port of its own."""
    images = TaggedImages()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            content = images.answer(self.path, self.headers.get("If-None-Match"), self.headers.get("If-Modified-Since"))
            with images.lock:
                images.answers[int(content[9:12])] += 1
                images.sent += len(content)
                images.asked.append(self.path)
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    images.port = server.server_port
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield images
    finally:
        server.shutdown()
        server.server_close()
