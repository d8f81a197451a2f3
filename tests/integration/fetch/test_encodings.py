"""What a host declares about a body and what it is: the image comes out all the same, and bombs stop nobody."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Iterator
from functools import partial

import brotli
import pytest
import zstandard

from pipeline.fetch import Fetched, Fetcher
from pipeline.records import Failure
from tests import peak
from tests.integration.fetch.asking import fetch_one, limits
from tests.integration.fetch.hostile import JPEG, Behaviour, Hostile, Visit, answer

_BARE = zlib.compressobj(wbits=-15)
BARE = _BARE.compress(JPEG) + _BARE.flush()
ZSTD = zstandard.ZstdCompressor().compress
GZIP = partial(gzip.compress, mtime=0)  # a time would stand in the names of tests, and each lane has its own
EMPTY_MEMBER = GZIP(b"")


def sends(raw: bytes) -> Behaviour:
    async def say(visit: Visit) -> None:
        visit.close = True
        await visit.send(raw)

    return say


def fetched(server: Hostile, raw: bytes) -> Fetched | Failure:
    server.extra["/body"] = sends(raw)
    return fetch_one(server.url("/body"), max_bytes=2**21)


@pytest.mark.parametrize(
    "headers",
    [
        ["UTF-8"], ["utf-8"], ["none"], ["binary"], ["identity"], ["Identity"], ["aws-chunked"], ["8bit"], ["compress"],
        ["image/jpeg"], [""], [" , "], ["none, identity"], ["none", "binary"], ["gzip"], ["br"], ["deflate"], ["zstd"],
        ["gzip", "gzip"],
    ],
)  # fmt: skip
def test_an_image_that_is_sent_as_it_is_comes_whatever_coding_is_declared(server: Hostile, headers: list[str]) -> None:
    outcome = fetched(server, answer(JPEG, "200 OK", *(f"Content-Encoding: {value}" for value in headers)))
    assert isinstance(outcome, Fetched), outcome
    assert outcome.content == JPEG


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["gzip"], GZIP(JPEG)),
        (["GZip"], GZIP(JPEG)),
        (["x-gzip"], GZIP(JPEG)),
        ([" gzip ,, identity "], GZIP(JPEG)),
        (["aws-chunked,gzip"], GZIP(JPEG)),
        (["gzip, utf-8"], GZIP(JPEG)),
        (["deflate"], zlib.compress(JPEG)),
        (["deflate"], BARE),
        (["br"], brotli.compress(JPEG)),
        (["zstd"], ZSTD(JPEG)),
        (["gzip, br"], brotli.compress(GZIP(JPEG))),
        (["deflate", "gzip"], GZIP(zlib.compress(JPEG))),
        (["gzip, gzip"], GZIP(JPEG)),
        (["gzip"], GZIP(GZIP(JPEG))),
        (["gzip"], GZIP(JPEG) + bytes(700)),
        (["gzip"], GZIP(JPEG) + b"<!-- served by -->"),
        (["gzip"], GZIP(JPEG[:900]) + GZIP(JPEG[900:])),
        (["zstd"], ZSTD(JPEG[:900]) + ZSTD(JPEG[900:])),
        (["deflate"], zlib.compress(JPEG) + b"junk"),
        ([], GZIP(JPEG)),
        ([], ZSTD(JPEG)),
        (["UTF-8"], GZIP(JPEG)),
        ([], GZIP(GZIP(JPEG))),
    ],
)
def test_a_compressed_body_is_undone_as_far_as_its_bytes_say(server: Hostile, headers: list[str], body: bytes) -> None:
    outcome = fetched(server, answer(body, "200 OK", *(f"Content-Encoding: {value}" for value in headers)))
    assert isinstance(outcome, Fetched), outcome
    assert outcome.content == JPEG


@pytest.mark.parametrize(
    ("encoding", "body", "reason", "detail"),
    [
        ("gzip", GZIP(JPEG)[:-9], "truncated", "compressed body ended early"),
        ("br", brotli.compress(JPEG)[:-9], "truncated", "compressed body ended early"),
        ("zstd", ZSTD(JPEG)[:-9], "truncated", "compressed body ended early"),
        ("", GZIP(JPEG)[:-9], "truncated", "compressed body ended early"),
        ("gzip", b"<html>sold out</html>" * 9, "protocol", "content-encoding does not decode"),
        ("gzip", GZIP(b"<html>sold out</html>"), "not_image", "html"),
        ("", GZIP(b"<svg/>" + bytes(90)), "not_image", "xml or svg"),
        ("none", b"<html>sold out</html>" * 9, "not_image", "html"),
        ("gzip", GZIP(b""), "empty", "after decompression"),
        ("gzip", GZIP(JPEG + bytes(2**21)), "too_large", "after decompression"),
        ("br", brotli.compress(JPEG + bytes(2**21)), "too_large", "after decompression"),
        ("zstd", ZSTD(JPEG + bytes(2**21)), "too_large", "after decompression"),
        ("gzip, gzip", GZIP(GZIP(JPEG + bytes(2**21))), "too_large", "after decompression"),
        ("gzip" + ", gzip" * 5, GZIP(JPEG), "protocol", "too many content-encodings"),
    ],
)
def test_a_compressed_body_that_is_no_image_says_why(
    server: Hostile, encoding: str, body: bytes, reason: str, detail: str
) -> None:
    outcome = fetched(server, answer(body, "200 OK", f"Content-Encoding: {encoding}"))
    assert isinstance(outcome, Failure), outcome
    assert (outcome.reason, outcome.detail) == (reason, detail)


HEAD = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(JPEG)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ONE_CHUNK = b"%x\r\n%s\r\n" % (len(JPEG), JPEG)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200\r\n" + LENGTH + b"\r\n" + JPEG,
        b"HTTP/1.1 200 OK\n" + LENGTH.replace(b"\r", b"") + b"X: y\n\n" + JPEG,
        b"HTTP/1.0 200 OK\r\n\r\n" + JPEG,
        HEAD + b"\r\n" + JPEG,
        HEAD + LENGTH + b"Content-Range: bytes 0-99/100\r\n\r\n" + JPEG,
        b"HTTP/1.1 206 Partial Content\r\n" + LENGTH
        + b"Content-Range: bytes 0-%d/%d\r\n\r\n" % (len(JPEG) - 1, len(JPEG)) + JPEG,
        HEAD + LENGTH + LENGTH + b"\r\n" + JPEG,
        HEAD + b"Content-Length: %d, %d\r\n\r\n" % (len(JPEG), len(JPEG)) + JPEG,
        HEAD + b"Set-Cookie: \xff\xe9=\xc3\xa4\r\n" + LENGTH + b"\r\n" + JPEG,
        CHUNKED + ONE_CHUNK + b"0\r\nno trailer at all\r\n\r\n",
        CHUNKED + ONE_CHUNK + b"0\r\nX: a\r\nX: b\r\n\r\n",
        CHUNKED + ONE_CHUNK.replace(b"\r\n", b"\n", 1) + b"0\n\n",
        CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in JPEG) + b"0\r\n\r\n",
    ],
)  # fmt: skip
def test_what_browsers_take_of_a_server_is_taken(server: Hostile, raw: bytes) -> None:
    outcome = fetched(server, raw)
    assert isinstance(outcome, Fetched), outcome
    assert outcome.content == JPEG


@pytest.mark.parametrize(
    ("raw", "reason", "detail"),
    [
        (HEAD + b"Content-Length: %d\r\n\r\n" % (len(JPEG) + 1) + JPEG, "truncated", "body ended early"),
        (CHUNKED + ONE_CHUNK, "truncated", "body ended early"),
        (CHUNKED + JPEG, "protocol", "wrong chunking"),
        (HEAD + b"Content-Encoding: gzip\r\n" + LENGTH + b"\r\n" + GZIP(JPEG), "truncated",
         "body ended early"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "protocol", "closed before an answer"),
    ],
)  # fmt: skip
def test_what_browsers_do_not_take_is_typed(server: Hostile, raw: bytes, reason: str, detail: str) -> None:
    outcome = fetched(server, raw)
    assert isinstance(outcome, Failure), outcome
    assert (outcome.reason, outcome.detail) == (reason, detail)


@pytest.mark.parametrize("suffix", ["", "?try=%d"])
def test_a_wall_that_wants_its_cookie_back_says_so(server: Hostile, suffix: str) -> None:
    async def wall(visit: Visit) -> None:
        where = "/wall" + (suffix % len(server.heads) if suffix else "")
        await visit.send(answer(b"", "302 Found", "Set-Cookie: seen=1", f"Location: {where}"))

    server.extra["/wall"] = wall
    outcome = fetch_one(server.url("/wall"))
    assert isinstance(outcome, Failure)
    what = "too many" if suffix else "loop"
    assert (outcome.reason, outcome.detail) == ("redirect", f"{what}: the host sets a cookie, and none is kept")
    assert not any("cookie" in head.lower() for head in server.heads)


@pytest.mark.parametrize(
    ("where", "final"),
    [
        (b"/\xc3\xa9.jpg", "/%C3%A9.jpg"),
        (b"/\xe9.jpg", "/%E9.jpg"),
        (b"  /a b.jpg ", "/a%20b.jpg"),
        (b"sub/x.jpg#part", "/sub/x.jpg"),
        (b"?q=\xff", "/body?q=%FF"),
        (b"//b\xc3\xbccher.example:PORT/x", "xn--bcher-kva.example"),
    ],
)
def test_a_redirect_in_raw_bytes_leads_where_a_browser_goes(server: Hostile, where: bytes, final: str) -> None:
    where = where.replace(b"PORT", b"%d" % server.port)
    server.extra["/body"] = sends(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + where + b"\r\n\r\n")
    told: list[str] = []
    fetch_one(server.url("/body"), trace=lambda _url, step, text: told.append(text) if step == "redirected" else None)
    assert final in told[0]


def _forever(first: bytes, more: bytes) -> Behaviour:
    async def say(visit: Visit) -> None:
        visit.close = True
        await visit.send(first)
        while True:
            await visit.send(more)

    return say


@pytest.mark.parametrize(
    ("first", "more", "detail"),
    [
        (CHUNKED + ONE_CHUNK + b"0\r\n", b"X-Trailer: y\r\n" * 5000, "headers over the cap"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, "headers over the cap"),
        (
            CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in JPEG),
            b"1\r\na\r\n" * 20_000,
            "chunks of very few bytes",
        ),
    ],
)
def test_an_answer_in_endless_small_pieces_ends_soon_and_small(
    server: Hostile, first: bytes, more: bytes, detail: str
) -> None:
    server.extra["/pieces"] = _forever(first, more)
    before, began = peak.forget(), time.process_time()
    outcome = fetch_one(server.url("/pieces"))
    spent, grown = time.process_time() - began, peak.held() - before
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.detail) == ("protocol", detail)
    assert spent < 10.0  # of processor time; it takes some tenths
    assert grown < 64 << 20


def test_images_of_others_pass_bodies_that_cost_much_to_decompress(server: Hostile) -> None:
    bomb = answer(EMPTY_MEMBER * 100_000, "200 OK", "Content-Encoding: gzip")
    server.extra["/bomb"] = sends(bomb)
    server.extra["/good"] = sends(answer(GZIP(JPEG), "200 OK", "Content-Encoding: gzip"))
    with Hostile() as other:
        other.extra["/good"] = server.extra["/good"]

        def items() -> Iterator[tuple[str, str] | None]:
            yield from (("bomb", server.url(f"/bomb?{number}")) for number in range(8))
            while sum(server.visits.values()) < 8:
                yield None
            yield from (("good", other.url(f"/good?{number}")) for number in range(5))

        fetcher = Fetcher(limits(connections_per_host=8))
        ended = [result for result in fetcher.stream(items()) if result is not None]
    order = [kind for kind, _ in ended]
    assert order.count("bomb") == 8
    assert all(isinstance(outcome, Fetched) for kind, outcome in ended if kind == "good")
    assert {outcome.detail for _, outcome in ended if isinstance(outcome, Failure)} == {"after decompression"}
    last_good = max(at for at, kind in enumerate(order) if kind == "good")
    assert order[:last_good].count("bomb") <= 4, order
