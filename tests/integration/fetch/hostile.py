"""A server on raw sockets that does what no server should; each path is one way to be bad."""

from __future__ import annotations

import asyncio
import base64
import gzip
import ssl
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from types import TracebackType

PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)) * 8 + b"\xff\xd9"

Behaviour = Callable[["Visit"], Awaitable[None]]
BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(path: str) -> Callable[[Behaviour], Behaviour]:
    def register(function: Behaviour) -> Behaviour:
        BEHAVIOURS[path] = function
        return function

    return register


def answer(body: bytes = JPEG, status: str = "200 OK", *headers: str, length: int | None = -1) -> bytes:
    """A whole HTTP/1.1 answer; length=None: none is announced."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length == -1 else length}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Visit:
    """One request at the server: what was asked, and the socket to be rude on."""

    def __init__(
        self, server: Hostile, path: str, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.path = path
        self.head = head
        self.reader = reader
        self.writer = writer
        self.close = False

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hang(self) -> None:
        self.close = True
        await self.server.forever()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER: a close sends RST
        self.writer.transport.abort()


class Hostile:
    """The server in a thread of its own, with its own loop.

    visits: requests by path.  most: greatest number of requests at the same time.  connections: accepted so far.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.visits: Counter[str] = Counter()
        self.heads: list[str] = []
        self.connections = 0
        self.now_open = 0
        self.busy = 0
        self.most = 0
        self.greeting: bytes | None = None
        """Said at once to whoever connects, and nothing after it."""
        self.released = threading.Event()
        self.extra: dict[str, Behaviour] = {}
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self.port = 0

    def __enter__(self) -> Hostile:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    async def forever(self) -> None:
        await self._end.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        server = await asyncio.start_server(self._guest, "127.0.0.1", 0, ssl=self._tls, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _guest(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.now_open += 1
        try:
            if self.greeting is not None:
                writer.write(self.greeting)
                await self.forever()
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, TimeoutError, ssl.SSLError):
            pass
        finally:
            self.now_open -= 1
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        path = head.split(" ", 2)[1]
        self.visits[path] += 1
        self.heads.append(head)
        name = path.partition("?")[0]
        visit = Visit(self, path, head, reader, writer)
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await (self.extra.get(name) or BEHAVIOURS.get(name) or missing)(visit)
        finally:
            self.busy -= 1
        return not visit.close


async def missing(visit: Visit) -> None:
    await visit.send(answer(b"not here", "404 Not Found"))


@behaviour("/ok.jpg")
async def ok(visit: Visit) -> None:
    await visit.send(answer(JPEG, "200 OK", 'ETag: "v1"', "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT"))


@behaviour("/drip")
async def drip(visit: Visit) -> None:
    visit.close = True
    await visit.send(answer(b"", "200 OK", length=100_000))
    for byte in JPEG:
        await visit.send(bytes([byte]))
        await asyncio.sleep(0.01)
    await visit.hang()


@behaviour("/drip-headers")
async def drip_headers(visit: Visit) -> None:
    await visit.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(10_000):
        await visit.send(b"X-%d: 1\r\n" % number)
        await asyncio.sleep(0.01)


@behaviour("/drip-404")
async def drip_missing(visit: Visit) -> None:
    await visit.send(answer(b"", "404 Not Found", length=1000))
    await visit.hang()


@behaviour("/hang")
async def hang(visit: Visit) -> None:
    await visit.hang()


@behaviour("/hang-in-status")
async def hang_in_status(visit: Visit) -> None:
    await visit.send(b"HTTP/1.1 20")
    await visit.hang()


@behaviour("/hang-in-headers")
async def hang_in_headers(visit: Visit) -> None:
    await visit.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    await visit.hang()


@behaviour("/hang-after-headers")
async def hang_after_headers(visit: Visit) -> None:
    await visit.send(answer(b"", length=1000))
    await visit.hang()


@behaviour("/hang-in-body")
async def hang_in_body(visit: Visit) -> None:
    await visit.send(answer(JPEG[:500], length=len(JPEG)))
    await visit.hang()


@behaviour("/hang-in-chunk")
async def hang_in_chunk(visit: Visit) -> None:
    await visit.send(answer(b"800\r\n" + JPEG[:500], "200 OK", "Transfer-Encoding: chunked", length=None))
    await visit.hang()


@behaviour("/close")
async def close(visit: Visit) -> None:
    visit.close = True


@behaviour("/reset")
async def reset(visit: Visit) -> None:
    visit.close = True
    visit.reset()


@behaviour("/half")
async def half(visit: Visit) -> None:
    visit.close = True
    await visit.send(answer(JPEG[:1000], length=len(JPEG)))


@behaviour("/reset-in-body")
async def reset_in_body(visit: Visit) -> None:
    visit.close = True
    await visit.send(answer(JPEG[:1000], length=len(JPEG)))
    await asyncio.sleep(0.05)
    visit.reset()


@behaviour("/longer-than-announced")
async def longer(visit: Visit) -> None:
    visit.close = True
    await visit.send(answer(JPEG + b"more" * 1000, length=len(JPEG)))


@behaviour("/negative-length")
async def negative(visit: Visit) -> None:
    visit.close = True
    await visit.send(answer(JPEG, length=-5))


@behaviour("/two-lengths")
async def two_lengths(visit: Visit) -> None:
    visit.close = True
    await visit.send(answer(JPEG, "200 OK", "Content-Length: 12"))


@behaviour("/same-length-twice")
async def same_length_twice(visit: Visit) -> None:
    await visit.send(answer(JPEG, "200 OK", f"Content-Length: {len(JPEG)}"))


@behaviour("/duplicated-headers")
async def duplicated_headers(visit: Visit) -> None:
    await visit.send(
        answer(
            JPEG,
            "200 OK",
            "Content-Type: image/png",
            "Content-Type: text/html",
            "ETag: a",
            "ETag: b",
            "Server: x",
            "Server: y",
        )
    )


@behaviour("/endless-headers")
async def endless_headers(visit: Visit) -> None:
    await visit.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await visit.send(b"X-Filler: " + b"x" * 1000 + b"\r\n")


@behaviour("/one-endless-header")
async def one_endless_header(visit: Visit) -> None:
    await visit.send(b"HTTP/1.1 200 OK\r\nX-Filler: ")
    while True:
        await visit.send(b"x" * 10_000)


@behaviour("/many-headers")
async def many_headers(visit: Visit) -> None:
    await visit.send(answer(JPEG, "200 OK", *(f"X-{number}: {'x' * 100}" for number in range(800))))


@behaviour("/endless-body")
async def endless_body(visit: Visit) -> None:
    await visit.send(answer(JPEG, length=None))
    while True:
        await visit.send(b"\0" * 65536)


@behaviour("/endless-chunks")
async def endless_chunks(visit: Visit) -> None:
    await visit.send(answer(b"", "200 OK", "Transfer-Encoding: chunked", length=None))
    await visit.send(b"%x\r\n%s\r\n" % (len(JPEG), JPEG))
    while True:
        await visit.send(b"10000\r\n" + b"\0" * 65536 + b"\r\n")


@behaviour("/endless-html")
async def endless_html(visit: Visit) -> None:
    await visit.send(answer(b"<html>", length=None))
    while True:
        await visit.send(b"<p>more</p>" * 5000)


@behaviour("/announces-too-much")
async def announces_too_much(visit: Visit) -> None:
    await visit.send(answer(JPEG, length=10**12))
    await visit.hang()


@behaviour("/gzip")
async def gzipped(visit: Visit) -> None:
    await visit.send(answer(gzip.compress(JPEG), "200 OK", "Content-Encoding: gzip"))


@behaviour("/deflate")
async def deflated(visit: Visit) -> None:
    await visit.send(answer(zlib.compress(JPEG), "200 OK", "Content-Encoding: deflate"))


@behaviour("/gzip-bomb")
async def gzip_bomb(visit: Visit) -> None:
    await visit.send(answer(gzip.compress(JPEG + bytes(80_000_000), 9), "200 OK", "Content-Encoding: gzip"))


@behaviour("/gzip-half")
async def gzip_half(visit: Visit) -> None:
    packed = gzip.compress(JPEG)
    await visit.send(answer(packed[: len(packed) // 2], "200 OK", "Content-Encoding: gzip"))


@behaviour("/gzip-lie")
async def gzip_lie(visit: Visit) -> None:
    await visit.send(answer(JPEG, "200 OK", "Content-Encoding: gzip"))


@behaviour("/gzip-lie-page")
async def gzip_lie_page(visit: Visit) -> None:
    await visit.send(answer(b"<html>sold out</html>" * 9, "200 OK", "Content-Encoding: gzip"))


@behaviour("/html")
async def html(visit: Visit) -> None:
    await visit.send(answer(b"<!DOCTYPE html><p>sold out</p>" * 10, "200 OK", "Content-Type: image/jpeg"))


@behaviour("/short-html")
async def short_html(visit: Visit) -> None:
    await visit.send(answer(b"<html>no", "200 OK", "Content-Type: image/jpeg"))


@behaviour("/empty")
async def empty(visit: Visit) -> None:
    await visit.send(answer(b""))


@behaviour("/no-content")
async def no_content(visit: Visit) -> None:
    await visit.send(answer(b"", "204 No Content", length=None))


@behaviour("/partial")
async def partial(visit: Visit) -> None:
    await visit.send(answer(JPEG, "206 Partial Content", "Content-Range: bytes 0-2057/9999"))


@behaviour("/not-modified")
async def not_modified(visit: Visit) -> None:
    await visit.send(answer(b"", "304 Not Modified", length=None))


@behaviour("/octet-stream")
async def octet_stream(visit: Visit) -> None:
    await visit.send(answer(JPEG, "200 OK", "Content-Type: application/octet-stream"))


@behaviour("/http10")
async def http10(visit: Visit) -> None:
    visit.close = True
    await visit.send(b"HTTP/1.0 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + JPEG)


@behaviour("/http09")
async def http09(visit: Visit) -> None:
    visit.close = True
    await visit.send(JPEG)


@behaviour("/http2")
async def http2(visit: Visit) -> None:
    visit.close = True
    await visit.send(b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n")


@behaviour("/bad-status")
async def bad_status(visit: Visit) -> None:
    visit.close = True
    await visit.send(b"HTTP/1.1 9999999 Wow\r\nContent-Length: 0\r\n\r\n")


@behaviour("/garbage")
async def garbage(visit: Visit) -> None:
    visit.close = True
    await visit.send(bytes(range(255, 0, -1)) * 20)


@behaviour("/nul-in-header")
async def nul_in_header(visit: Visit) -> None:
    visit.close = True
    await visit.send(answer(JPEG, "200 OK", "X-Evil: a\0b"))


@behaviour("/continue")
async def with_continue(visit: Visit) -> None:
    await visit.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer())


@behaviour("/endless-continue")
async def endless_continue(visit: Visit) -> None:
    while True:
        await visit.send(b"HTTP/1.1 100 Continue\r\nX-Filler: " + b"x" * 900 + b"\r\n\r\n")


@behaviour("/chunked")
async def chunked(visit: Visit) -> None:
    await visit.send(answer(b"", "200 OK", "Transfer-Encoding: chunked", length=None))
    await visit.send(b"%x;ext=1\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(JPEG), JPEG))


@behaviour("/chunked-and-length")
async def chunked_and_length(visit: Visit) -> None:
    visit.close = True
    await visit.send(
        answer(b"%x\r\n%s\r\n0\r\n\r\n" % (len(JPEG), JPEG), "200 OK", "Transfer-Encoding: chunked", length=7)
    )


@behaviour("/wrong-chunking")
async def wrong_chunking(visit: Visit) -> None:
    visit.close = True
    await visit.send(
        answer(b"400\r\n" + JPEG[:1024] + b"\r\nZZZ\r\n", "200 OK", "Transfer-Encoding: chunked", length=None)
    )


@behaviour("/chunks-cut")
async def chunks_cut(visit: Visit) -> None:
    visit.close = True
    await visit.send(answer(b"400\r\n" + JPEG[:1024] + b"\r\n", "200 OK", "Transfer-Encoding: chunked", length=None))


@behaviour("/close-after")
async def close_after(visit: Visit) -> None:
    visit.close = True  # keep-alive was promised by silence
    await visit.send(answer())


@behaviour("/cookie")
async def cookie(visit: Visit) -> None:
    await visit.send(answer(b"", "302 Found", "Set-Cookie: id=1", "Location: /ok.jpg?after-cookie"))


@behaviour("/to")
async def to(visit: Visit) -> None:
    """Redirects to what stands after the question mark."""
    where = visit.path.partition("?")[2]
    await visit.send(answer(b"gone there", "302 Found", f"Location: {where}"))


@behaviour("/to-nowhere")
async def to_nowhere(visit: Visit) -> None:
    await visit.send(answer(b"", "302 Found"))


@behaviour("/to-two-places")
async def to_two_places(visit: Visit) -> None:
    await visit.send(answer(b"", "302 Found", "Location: /ok.jpg", "Location: /html"))


@behaviour("/loop")
async def loop(visit: Visit) -> None:
    await visit.send(answer(b"", "301 Moved Permanently", "Location: /loop-back"))


@behaviour("/loop-back")
async def loop_back(visit: Visit) -> None:
    await visit.send(answer(b"", "301 Moved Permanently", "Location: /loop"))


@behaviour("/chain")
async def chain(visit: Visit) -> None:
    number = int(visit.path.partition("?")[2])
    where = f"/chain?{number - 1}" if number > 1 else "/ok.jpg"
    await visit.send(answer(b"", "307 Temporary Redirect", f"Location: {where}"))


@behaviour("/redirect-hangs")
async def redirect_hangs(visit: Visit) -> None:
    await visit.send(answer(b"x", "302 Found", "Location: /ok.jpg", length=1000))
    await visit.hang()


@behaviour("/429")
async def too_many(visit: Visit) -> None:
    await visit.send(answer(b"", "429 Too Many Requests"))


@behaviour("/429-once")
async def too_many_once(visit: Visit) -> None:
    if visit.server.visits[visit.path] == 1:
        await visit.send(answer(b"", "429 Too Many Requests", "Retry-After: 7"))
    else:
        await ok(visit)


@behaviour("/503-date-once")
async def unavailable_once(visit: Visit) -> None:
    if visit.server.visits[visit.path] == 1:
        await visit.send(answer(b"", "503 Unavailable", f"Retry-After: {formatdate(1_700_000_009, usegmt=True)}"))
    else:
        await ok(visit)


@behaviour("/429-for-hours")
async def too_many_for_hours(visit: Visit) -> None:
    await visit.send(answer(b"", "429 Too Many Requests", "Retry-After: 7200"))


@behaviour("/500-twice")
async def twice_broken(visit: Visit) -> None:
    if visit.server.visits[visit.path] <= 2:
        await visit.send(answer(b"oops", "500 Oops"))
    else:
        await ok(visit)


@behaviour("/403")
async def forbidden(visit: Visit) -> None:
    await visit.send(answer(b"<Error>Request has expired</Error>", "403 Forbidden"))
