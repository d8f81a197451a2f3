"""A value that no library can hold, in an answer or a URL, ends its own URL and no other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.fetch import fetch_all
from pipeline.records import Failure
from pipeline.settings import Fetch

DAY = "9" * 30


class Busy(BaseHTTPRequestHandler):
    """Wants to be asked again on a day of thirty digits."""

    def do_GET(self) -> None:
        self.send_response(429)
        self.send_header("Retry-After", f"Mon, {DAY} Jan 2026 00:00:00 GMT")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def busy() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_day_that_no_calendar_has_and_a_bracket_that_is_not_closed_are_failures(busy: str, tmp_path: Path) -> None:
    urls = [f"{busy}a.jpg", "file://[", "data:,x"]
    ended = {
        one.url: one for one in fetch_all(urls, Fetch(allow_private=True, allow_folders=[str(tmp_path)], attempts=1))
    }
    assert set(ended) == set(urls)
    reasons = {url: one.reason for url, one in ended.items() if isinstance(one, Failure)}
    assert reasons == {urls[0]: "http_429", urls[1]: "bad_url", urls[2]: "not_image"}
