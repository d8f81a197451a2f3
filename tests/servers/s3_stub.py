"""An S3 server of a few canned answers, for what a real one cannot be brought to say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Canned:
    """One answer; `error` becomes the XML of an error with that code."""

    status: int
    error: str = ""
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        if not self.error:
            return self.body
        more = "<Region>eu-north-1</Region>" if "Redirect" in self.error or "Malformed" in self.error else ""
        return f"<Error><Code>{self.error}</Code><Message>words of the stub</Message>{more}</Error>".encode()


@dataclass
class Stub:
    """Gives its answers in turn, the last one for ever."""

    answers: list[Canned]
    port: int = 0
    requests: list[str] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def answering(*answers: Canned) -> Iterator[Stub]:
    """A stub on a free port."""
    stub = Stub(list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            stub.requests.append(f"{self.command} {self.path}")
            canned = stub.answers.pop(0) if len(stub.answers) > 1 else stub.answers[0]
            self.send_response(canned.status)
            for name, value in canned.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in canned.headers:
                self.send_header("Content-Length", str(len(canned.content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(canned.content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

        def log_message(self, *_: object) -> None:
            """The tests look at `requests`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
