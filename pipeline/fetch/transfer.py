"""One request through libcurl: what comes in is capped, sniffed and typed while it comes.

libcurl does the HTTP, never the deciding: it resolves nothing (the checked address is pinned by CONNECT_TO and
compared once more before a request is sent), follows no redirect, keeps no cookies, reads no .netrc, uses no proxy
and decompresses nothing.
"""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Protocol

import pycurl

from pipeline.fetch.answer import BLANK, REDIRECTS, Head, read_head, verdict
from pipeline.fetch.breakdown import BAD_HEADER, why_broken
from pipeline.fetch.conditions import ANSWERS, headers_of
from pipeline.fetch.encoding import codings, stored
from pipeline.fetch.sink import Sink
from pipeline.fetch.sniff import ENOUGH, looks_like
from pipeline.fetch.target import Target
from pipeline.records import Failure
from pipeline.settings import Fetch

if TYPE_CHECKING:
    from pipeline.fetch.host import Host
    from pipeline.fetch.job import Job

_DISCARD_BYTES = 64 * 2**10
"""Of a body that nobody wants: less is read, so that the connection lives on; more is not."""
_DISCARD_SECONDS = 1.0
_MANY_PIECES, _PIECE = 2**18, 64
"""A body in more pieces than that, of fewer bytes each on average, costs more than it can be worth."""
_MANY_LINES = 20_000
_ABORT = -1


class Room(Protocol):
    """Where bodies are buffered: asked before each piece."""

    def admit(self, transfer: Transfer, size: int) -> bool: ...


class Transfer:
    """A curl handle and the request that it makes now; used again for the next one."""

    def __init__(
        self,
        rules: Fetch,
        room: Room,
        accept: Callable[[bytes], str | None],
        user_agent: str,
        ca: tuple[str | None, str | None],
    ) -> None:
        self._rules = rules
        self._room = room
        self._accept = accept
        self.curl: Any = pycurl.Curl()
        self._lines: list[bytes] = []
        self._prepare(user_agent, ca)
        self.job: Job
        self.host: Host
        self.probe = False
        self._clear()

    def _clear(self) -> None:
        self.sink: Sink | None = None
        self._asks_rest = False
        self.parts: list[bytes] = []
        self.size = 0
        self.head: Head | None = None
        self.verdict: Failure | None = None
        self.format: str | None = None
        self.packed = False
        """No image by its first bytes, but one may come out when it is decompressed."""
        self._interim_bytes = 0
        self.redirects = False
        self.conditional = False
        """A condition was sent."""
        self.answered = False
        """The answer is one to the condition: it has no image."""
        self.connected = False
        self._fd: int | None = None
        self.paused_at: float | None = None
        self._flowing = ""
        self._flows_since = 0.0
        self._sniffed = False
        self._discarded = 0
        self._discard_at: float | None = None
        self._lines.clear()

    def _prepare(self, user_agent: str, ca: tuple[str | None, str | None]) -> None:
        set_ = self.curl.setopt
        set_(pycurl.NOSIGNAL, 1)
        set_(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        set_(pycurl.FOLLOWLOCATION, 0)
        set_(pycurl.PROXY, "")
        set_(pycurl.NETRC, pycurl.NETRC_IGNORED)
        set_(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        set_(pycurl.HTTP_CONTENT_DECODING, 0)
        set_(pycurl.DNS_CACHE_TIMEOUT, 0)  # it is given addresses only; its own cache is searched whole each time
        set_(pycurl.PATH_AS_IS, 1)
        set_(pycurl.SSL_VERIFYPEER, 1)
        set_(pycurl.SSL_VERIFYHOST, 2)
        set_(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        for option, value in zip((pycurl.CAINFO, pycurl.CAPATH), ca, strict=True):
            if value is not None:
                set_(option, value)
        set_(pycurl.BUFFERSIZE, 128 * 2**10)
        set_(pycurl.USERAGENT, user_agent)
        set_(pycurl.HTTPHEADER, _HEADERS)
        set_(pycurl.WRITEFUNCTION, self._write)
        set_(pycurl.HEADERFUNCTION, self._lines.append)  # libcurl ends it at 300 KiB; the cap is checked after
        set_(pycurl.SOCKOPTFUNCTION, self._socket_made)
        set_(pycurl.PREREQFUNCTION, self._before_request)

    def begin(self, job: Job, host: Host, address: str, now: float, probe: bool) -> None:
        """Make ready for the job's target at `address`; the caller adds the handle to its multi.

        It is new, or was released: nothing of an earlier request is left.
        """
        target = job.target
        self.job, self.host, self.probe = job, host, probe
        self.started = now
        self._address = address
        curl = self.curl
        curl.setopt(pycurl.URL, target.url)
        place = f"[{address}]" if ":" in address else address
        curl.setopt(pycurl.CONNECT_TO, [f"::{place}:{target.port}"])
        self.sink = job.sink
        rest = [] if job.sink is None else [*job.sink.headers(target.url), "Accept: */*"]
        self._asks_rest = len(rest) > 1
        condition = headers_of(job.condition, target.url) + rest
        self.conditional = bool(condition) and job.sink is None
        self._own_headers = bool(target.user or host.headers or condition)
        if self._own_headers:
            usual = _headers(target, host.headers)
            usual = [line for line in usual if not line.startswith("Accept:")] if rest else usual
            curl.setopt(pycurl.HTTPHEADER, [*usual, *condition])

    def release(self) -> None:
        """Forget the request; what it held is free."""
        if self._own_headers:
            self.curl.setopt(pycurl.HTTPHEADER, _HEADERS)
        del self.job, self.host
        self._clear()

    # --- libcurl's callbacks: no exception may leave them ---

    def _before_request(self, address: str, _local: str, _port: int, _local_port: int) -> int:
        self.connected = True
        if address != self._address and ip_address(address) != ip_address(self._address):  # IPv6 has two spellings
            self.verdict = Failure.of("blocked", "address: not the one that was checked")
            return int(pycurl.PREREQFUNC_ABORT)
        return int(pycurl.PREREQFUNC_OK)

    def _socket_made(self, fd: int, _purpose: int) -> int:
        self._fd = fd
        return int(pycurl.SOCKOPT_OK)

    def _read_head(self) -> None:
        """The head is whole: the body begins, or the answer ends.  What it decides is in `verdict`."""
        if not self._lines:
            return  # nothing came behind an interim answer
        if self._header_bytes() > self._rules.max_header_bytes:
            self.verdict = Failure.of("protocol", "headers over the cap")
            return
        head = read_head(self._lines)
        if isinstance(head, Failure):
            self.verdict = head
            return
        if 100 <= head.status < 200 and head.status != 101:
            self._interim_bytes = self._header_bytes()  # the real one is still to come; this one is not read again
            self._lines.clear()
            return
        self.head = head
        self.answered = self.conditional and head.status in ANSWERS
        self.verdict = None if self.answered else self._of_head(head)
        self.redirects = self.verdict is None and head.status in REDIRECTS
        if (self.verdict is not None or self.answered) and (head.length or 0) > _DISCARD_BYTES:
            self._discarded = _DISCARD_BYTES  # not a byte of it is worth its while

    def _of_head(self, head: Head) -> Failure | None:
        """What the head alone decides; a file that is written goes on, or begins anew."""
        sink = self.sink
        part = sink is not None and self._asks_rest and head.status in (206, 416)
        found = None if part else verdict(head, self._rules.max_bytes)
        if sink is None or found is not None or head.status in REDIRECTS:
            return found
        found = sink.begin(head, self.job.target.url, self._asks_rest)
        if found is None and sink.size + (head.length or 0) > self._rules.max_bytes:
            found = Failure.of("too_large", "announced length")
        self._sniffed = self._sniffed or sink.size > 0  # it was looked at when it began
        return found

    def _header_bytes(self) -> int:
        return self._interim_bytes + sum(map(len, self._lines))

    def _look_at_head(self) -> None:
        """Read it where it has come whole and no body has followed yet."""
        if self.head is None and self.verdict is None and self._lines and self._lines[-1] in BLANK:
            self._read_head()

    def _write(self, data: bytes) -> int | None:
        if self.head is None and self.verdict is None:
            self._read_head()
            if self.head is None and self.verdict is None:
                self.verdict = Failure.of("protocol", "no headers")
        size = len(data)
        if self.verdict is not None or self._without_image:
            self._discarded += size
            return _ABORT if self._discarded > _DISCARD_BYTES else None
        if self.sink is not None:
            return self._write_file(self.sink, data)
        if not self._room.admit(self, size):
            return int(pycurl.WRITEFUNC_PAUSE)
        self.size += size
        self.parts.append(data)
        if self.size > self._rules.max_bytes:
            self.verdict = Failure.of("too_large", "body")
            return _ABORT
        if len(self.parts) > _MANY_PIECES and self.size < _PIECE * len(self.parts):
            self.verdict = Failure.of("protocol", "chunks of very few bytes")
            return _ABORT
        if not self._sniffed and self.size >= ENOUGH and not self._is_image():
            self._discarded = self.size
        return None

    def _write_file(self, sink: Sink, data: bytes) -> int | None:
        """A piece for the file; the first bytes wait until they say what they are."""
        self.size += len(data)
        self.parts.append(data)
        if sink.size + sum(map(len, self.parts)) > self._rules.max_bytes:
            self.verdict = Failure.of("too_large", "body")
            return _ABORT
        if not self._sniffed and (self.size < ENOUGH or not self._is_image()):
            return None if self.verdict is None else _ABORT
        return None if self._put(sink) else _ABORT

    def _put(self, sink: Sink) -> bool:
        done = sink.write(b"".join(self.parts))
        self.parts.clear()
        if not done:
            self.verdict = Failure.of("too_large", "body")
        return done

    # --- verdicts ---

    @property
    def _without_image(self) -> bool:
        """The head is all that is wanted of the answer."""
        return self.redirects or self.answered

    def _is_image(self) -> bool:
        self._sniffed = True
        first = b"".join(self.parts[:ENOUGH])[:ENOUGH]
        self.format = self._accept(first)
        if self.format is not None:
            return True  # also where a coding is declared: hosts say so of plain images, and browsers look as well
        assert self.head is not None
        self.packed = bool(stored(first) or (self.head.encoding and codings(self.head.encoding)))
        if not self.packed:
            self.verdict = Failure.of("not_image", looks_like(first))
        return self.packed

    def overdue(self, now: float, budget: float) -> bool:
        """Must it end now?  Then `verdict` says why (None: an answer whose body nobody waits for).

        budget: seconds that it may take.
        """
        if self.paused_at is not None:
            return False
        self._look_at_head()
        if self.verdict is not None or self._without_image:
            self._discard_at = self._discard_at or now
            return now - self._discard_at > _DISCARD_SECONDS
        age = now - self.started
        if age > budget:
            self.verdict = Failure.of("timeout", self._phase())
        elif not self.connected and age > self._rules.connect_seconds:
            tcp = self._tcp()
            self.verdict = Failure.of("timeout", "tls handshake") if tcp else Failure.of("connect", "no answer")
        elif self.size:
            self._mind_the_speed(self.size, now, "body")
            if len(self._lines) > _MANY_LINES:  # trailers without end
                self.verdict = Failure.of("protocol", "headers over the cap")
        elif self._lines and self._lines[-1] not in BLANK:  # an interim answer may be followed by a long thought
            size = self._header_bytes()
            self._mind_the_speed(size, now, "headers")
            if size > self._rules.max_header_bytes:
                self.verdict = Failure.of("protocol", "headers over the cap")
        return self.verdict is not None

    def _mind_the_speed(self, size: int, now: float, part: str) -> None:
        if self._flowing != part:
            self._flowing, self._flows_since = part, now
        age = now - self._flows_since
        if age > self._rules.min_speed_grace_seconds and size < age * self._rules.min_bytes_per_second:
            self.verdict = Failure.of("too_slow", part)

    def story(self) -> list[tuple[str, str]]:
        """What happened, in steps, for the person who asks why an image is missing."""
        steps = []
        if self.connected or self._tcp():
            steps.append(("connected", f"to {self._address} port {self.job.target.port}"))
        if self.head is not None:
            length = "unknown" if self.head.length is None else str(self.head.length)
            steps.append(("headers", f"status {self.head.status}, length {length}"))
        if self._sniffed:
            packed = "compressed" if self.packed else "not an image format that Hathi knows"
            steps.append(("sniffed", self.format or packed))
        if self.size:
            steps.append(("bytes", str(self.size)))
        return steps

    def pause(self, now: float) -> None:
        if self.paused_at is None:
            self.paused_at = now

    def resume(self, now: float) -> None:
        """Read on; the time that passed was ours, not the host's.  May call back at once."""
        if self.paused_at is not None:
            waited, self.paused_at = now - self.paused_at, None
            self.started += waited
            self._flows_since += waited
            self.curl.pause(pycurl.PAUSE_CONT)

    def _tcp(self) -> bool:
        """The connection stands, whatever TLS says: libcurl does not tell before TLS is done, the kernel does."""
        if self._fd is None:
            return False
        try:
            with socket.socket(fileno=os.dup(self._fd)) as connection:
                connection.getpeername()
        except OSError:
            return False
        return True

    def _phase(self) -> str:
        if not self.connected:
            return "tls handshake" if self._tcp() else "connecting"
        if self.head is None:
            return "waiting for headers"
        return "body"

    def complete(self) -> Failure | None:
        """libcurl says that all went well: does the whole answer say so?"""
        if self.head is None and self.verdict is None:
            self._read_head()
        if self.verdict is not None or self._without_image:
            return self.verdict
        if self.head is None:
            return Failure.of("protocol", "no headers")
        if self.size == 0:
            return Failure.of("empty", str(self.head.status))
        if not self._sniffed and not self._is_image():
            return self.verdict
        if self.sink is not None and not (self._put(self.sink) and self.sink.is_whole()):
            return self.verdict or Failure.of("truncated", "body ended early")
        return None

    def broken(self, code: int) -> Failure | None:
        """libcurl gave up with `code`: the failure that this is, None where nobody waits for the body that broke."""
        self._look_at_head()
        if self.head is None and self._header_bytes() > self._rules.max_header_bytes:
            return Failure.of("protocol", "headers over the cap")
        if self.verdict is not None or self._without_image:
            return self.verdict
        if code == BAD_HEADER and self.head is not None:
            return self.complete()  # a trailer that is none: the body before it is whole, and browsers take it
        return why_broken(self.curl, code, self.head is not None)


def _headers(target: Target, own: tuple[str, ...]) -> list[str]:
    """Those of the settings for this host stand in the place of the usual ones, and of a user that the URL names."""
    named = {line.partition(":")[0].lower() for line in own}
    usual = [*_HEADERS, _authorization(target)] if target.user else _HEADERS
    return [*(line for line in usual if line.partition(":")[0].lower() not in named), *own]


def _authorization(target: Target) -> str:
    return "Authorization: Basic " + base64.b64encode(target.user).decode("ascii")


_HEADERS = [
    "Accept: image/jpeg,image/png,image/webp,image/gif,image/*;q=0.8,*/*;q=0.5",
    "Accept-Encoding: identity",
]
