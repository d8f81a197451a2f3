"""A host of fixed bodies over HTTP, for what fetches by URL."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextlib.contextmanager
def hosting(bodies: Mapping[str, bytes], asked: Callable[[str], object] = lambda path: None) -> Iterator[str]:
    """Its URL.  bodies: by path; any other one is 404.  asked: told of each path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked(self.path)
            body = bodies.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
