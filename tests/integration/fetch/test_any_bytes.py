"""Whatever bytes a server sends, a URL ends as an image or as a failure of the closed list, and soon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.fetch import Fetched
from pipeline.records import REASONS, Failure
from tests.integration.fetch.asking import fetch_one
from tests.integration.fetch.hostile import JPEG, Hostile, Visit

STATUS = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.0 200", b"HTTP/1.1 302 Found", b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 Switching",
     b"HTTP/1.1 300 Choices", b"HTTP/1.1 401 No", b"HTTP/1.1 407 Proxy", b"HTTP/1.1 426 Up", b"HTTP/3 200", b"ICY 200"]
)  # fmt: skip
HEADERS = st.sampled_from(
    [b"Content-Length: 2062", b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: -1",
     b"Content-Length: 99999999999999999999", b"Content-Length: 1e3", b"Transfer-Encoding: chunked",
     b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: identity",
     b"Content-Encoding: gzip", b"Content-Encoding: gzip, gzip", b"Content-Encoding: deflate", b"Connection: close",
     b"Connection: upgrade", b"Upgrade: h2c", b"Location: /ok.jpg", b"Location: //", b"Location: http://", b"Location:",
     b"Location: \xff\xfe", b" folded: yes", b": nameless", b"no colon", b"X: \x00", b"X: \r", b"Trailer: X",
     b"Content-Range: bytes 0-1/2", b"WWW-Authenticate: Basic", b"Set-Cookie: a=b", b"Alt-Svc: h3=\":443\"",
     b"Strict-Transport-Security: max-age=9", b"Retry-After: 99999", b"ETag: \xe9"]
)  # fmt: skip
CHUNKS = st.sampled_from(
    [b"5\r\nhello\r\n0\r\n\r\n", b"FFFFFFFFFFFFFFFF\r\n", b"-1\r\n", b"0\r\n\r\n", b"\r\n\r\n", b"5;" + b"x" * 9999,
     b"80e\r\n" + JPEG + b"\r\n0\r\nX: y\r\n\r\n", JPEG, b"\x1f\x8b\x08", b"x\x9c", b"HTTP/1.1 200 OK\r\n\r\n",
     b"<html>"]
)  # fmt: skip
ENDS = st.sampled_from([b"\r\n", b"\n", b"\r", b""])


def answer_of(status: bytes, headers: list[bytes], end: bytes, chunks: list[bytes]) -> bytes:
    return end.join([status, *headers, b"", b""]) + b"".join(chunks)


ANSWERS = st.builds(answer_of, STATUS, st.lists(HEADERS, max_size=5), ENDS, st.lists(CHUNKS, max_size=3)) | st.binary(
    max_size=300
)


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    with Hostile() as hostile:
        yield hostile


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANSWERS)
@example(b"")
@example(b"HTTP/1.1 200 OK\n\n" + JPEG)
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2062\r\nLocation: /elsewhere\r\n\r\n" + JPEG)
def test_any_answer_ends_as_an_image_or_a_known_failure(server: Hostile, answer: bytes) -> None:
    async def say(visit: Visit) -> None:
        visit.close = True
        await visit.send(answer)

    server.extra["/any"] = say
    outcome = fetch_one(server.url("/any"), max_bytes=2**20)
    if isinstance(outcome, Failure):
        assert outcome.reason in REASONS
        assert outcome.detail.isascii()
        assert "127.0.0.1" not in outcome.detail
        assert outcome.detail
    else:
        assert isinstance(outcome, Fetched)
        assert outcome.content.startswith(b"\xff\xd8\xff")
