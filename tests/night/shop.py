"""A web of images that can be told to refuse, to hang, to crawl, or to answer pages."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.integration.conftest import picture

PAGE = b"<!doctype html><title>maintenance</title>"


class Shop:
    """Serves a picture for every path.  mode: well, refuses, hangs, slow, pages."""

    def __init__(self) -> None:
        self.mode = "well"
        self._over = threading.Event()
        shop = self

        class Guest(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                shop.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Not in the tests' output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Guest)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def url(self, number: int, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{number}"

    def answer(self, guest: BaseHTTPRequestHandler) -> None:
        mode = self.mode
        if mode == "hangs":
            self._over.wait(30)
            guest.close_connection = True
            return
        status, body = (403, b"no") if mode == "refuses" else (200, PAGE)
        if mode in ("well", "slow"):
            body = picture(int(urlsplit(guest.path).path.strip("/")))
        guest.send_response(status)
        guest.send_header("Content-Length", str(len(body)))
        guest.end_headers()
        try:
            if mode == "slow":
                self._crawl(guest, body)
            else:
                guest.wfile.write(body)
        except OSError:
            guest.close_connection = True  # who asked has given up

    def _crawl(self, guest: BaseHTTPRequestHandler, body: bytes) -> None:
        for at in range(len(body)):
            if self.mode != "slow" or self._over.is_set():
                guest.wfile.write(body[at:])
                return
            guest.wfile.write(body[at : at + 1])
            time.sleep(0.2)

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
