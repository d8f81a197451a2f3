"""From a body to results: sniffed, hashed; what is compressed, and what is long to decode, goes to the unpacker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any, NamedTuple

from pipeline.clock import Clock
from pipeline.fetch.answer import Head
from pipeline.fetch.buffer_budget import BufferRoom
from pipeline.fetch.encoding import Unpacking, codings, stored, unpack
from pipeline.fetch.inline import is_data, read_data, read_file
from pipeline.fetch.job import Body, Ended, Fetched, Job, Waiter
from pipeline.fetch.objects import Read
from pipeline.fetch.sink import Stored
from pipeline.fetch.sniff import ENOUGH, looks_like
from pipeline.fetch.unpacking import Packed, Unpacker
from pipeline.records import Failure
from pipeline.settings import Fetch

_LIGHT_BYTES = 256 * 2**10
_AT_ONCE = 16


class Inline(NamedTuple):
    """A URL that needs no host."""

    waiter: Waiter


def is_light(body: Body) -> bool:
    """Hashed sooner than handed to another thread."""
    return body.size <= _LIGHT_BYTES and not body.packed


def joined(body: Body) -> bytes:
    """The body in one piece."""
    return body.parts[0] if len(body.parts) == 1 else b"".join(body.parts)


def results(body: Body, content: bytes | Failure) -> list[Ended]:
    """One for each item that waited.  The bytes are shared, so they cost the buffer once."""
    job, head = body.job, body.head
    if isinstance(content, Failure):
        return [Ended(waiter, _with_url(content, waiter.url), 0, job.requests) for waiter in job.waiters]
    digest = hashlib.sha256(content).digest()
    ended = []
    cost = len(content)
    for waiter in job.waiters:
        fetched = Fetched(
            waiter.url,
            content,
            body.final_url,
            head.status,
            digest,
            head.etag,
            head.last_modified,
            body.fetched_at,
            job.spent_before + job.spent,
        )
        ended.append(Ended(waiter, fetched, cost, job.requests))
        cost = 0
    return ended


def in_file(job: Job, waiter: Waiter, head: Head) -> Ended:
    """The result of a body that is in its file."""
    assert job.sink is not None
    return Ended(waiter, Stored(waiter.url, job.target.url, head.status, head.etag, job.sink.size), 0, job.requests)


class Finisher:
    """What would hold up the thread that fetches.  `run`: bodies in, lists of Ended out, until it is given None."""

    def __init__(
        self,
        limits: Fetch,
        clock: Clock,
        accept: Callable[[bytes], str | None],
        room: BufferRoom,
        bodies: SimpleQueue[Body | Inline | Read | None],
        finished: SimpleQueue[Any],
        unpacker: Unpacker,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._accept = accept
        self._room = room
        self._bodies = bodies
        self._finished = finished
        self._unpacker = unpacker

    def run(self) -> None:
        while (work := self._bodies.get()) is not None:
            ended = self._results(work)
            while len(ended) < _AT_ONCE and not self._bodies.empty():  # nobody else takes from it
                work = self._bodies.get()
                if work is None:
                    return
                ended += self._results(work)
            if ended:
                self._finished.put(ended)

    def _results(self, work: Body | Inline | Read) -> list[Ended]:
        """Those that there are at once; the unpacker gives the others."""
        if isinstance(work, Inline):
            return self._of_inline(work.waiter)
        if isinstance(work, Read):
            return self._of_bytes(work.waiter, work.content, work.encoding, work.waiter.url, work.seconds)
        content = joined(work)
        work.parts.clear()
        if not work.packed:
            return results(work, content)
        self._unpack(content, work.head.encoding, lambda found: results(work, self._image(found)))
        return []

    def _of_inline(self, waiter: Waiter) -> list[Ended]:
        if is_data(waiter.url):
            return self._of_bytes(waiter, read_data(waiter.url, self._limits.max_bytes), "", "data:", 0.0)
        content = read_file(waiter.url, self._limits.allow_folders, self._limits.max_bytes)
        return self._of_bytes(waiter, content, "", waiter.url, 0.0)

    def _of_bytes(
        self, waiter: Waiter, content: bytes | Failure, encoding: str, final_url: str, seconds: float
    ) -> list[Ended]:
        """The result of what no host was asked for."""
        if isinstance(content, bytes):
            self._room.grown += len(content)
            head = content[:ENOUGH]
            if not self._accept(head) and (codings(encoding) or stored(head)):
                self._unpack(content, encoding, lambda found: [self._apart(waiter, found, final_url, seconds)])
                return []
        ended = self._apart(waiter, content, final_url, seconds)
        if isinstance(content, bytes):
            self._room.grown += ended.cost - len(content)
        return [ended]

    def _unpack(self, content: bytes, encoding: str, done: Callable[[bytes | Failure], list[Ended]]) -> None:
        work: Unpacking = unpack(content, encoding, self._limits.max_bytes, self._accept)
        self._unpacker.submit(Packed(len(content), work, done))

    def _apart(self, waiter: Waiter, content: bytes | Failure, final_url: str, seconds: float) -> Ended:
        image = self._image(content)
        if isinstance(image, Failure):
            return Ended(waiter, _with_url(image, waiter.url), 0, 0)
        digest = hashlib.sha256(image).digest()
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        fetched = Fetched(waiter.url, image, final_url, 200, digest, "", "", now, seconds)
        return Ended(waiter, fetched, len(image), 0)

    def _image(self, content: bytes | Failure) -> bytes | Failure:
        if isinstance(content, Failure):
            return content
        if not content:
            return Failure.of("empty", "after decompression")
        head = content[:ENOUGH]
        return content if self._accept(head) else Failure.of("not_image", looks_like(head))


def _with_url(failure: Failure, url: str) -> Failure:
    return Failure(failure.reason, failure.detail, failure.retriable, url)
