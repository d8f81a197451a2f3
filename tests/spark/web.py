"""A web of pictures that takes its time: a thread of the tests' own process."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.integration.conftest import picture


@contextmanager
def slow_web(seconds: float, gate: threading.Event | None = None) -> Iterator[str]:
    """The URL of a host whose every picture (`/PARTNER/NUMBER.png`) takes so many seconds; other paths are 404.

    gate: pictures wait until it is set.
    """

    class Guest(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = re.fullmatch(r"/(\d+)/(\d+)\.png", self.path)
            time.sleep(seconds)
            if gate is not None:
                gate.wait()
            body = picture(int(found[1]) * 1000 + int(found[2])) if found else b"no"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Not in the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Guest)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
