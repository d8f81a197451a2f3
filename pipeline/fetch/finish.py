"""From a body to a result: decompressed under the cap, sniffed, hashed; in a thread of its own.

Hashing lets go of the interpreter's lock, so it costs the thread that fetches nothing where there is a second core.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple

from pipeline import settings
from pipeline.fetch.clock import Clock
from pipeline.fetch.encoding import PLAIN, decompress
from pipeline.fetch.inline import is_data, read_data, read_file
from pipeline.fetch.job import Body, Ended, Fetched, Trace, Waiter
from pipeline.fetch.room import BufferRoom
from pipeline.records import Failure

_AT_ONCE = 16


class Inline(NamedTuple):
    """A URL that needs no host."""

    waiter: Waiter


class Finisher:
    """`run` is the thread: bodies in, lists of Ended out, until it is given None."""

    def __init__(self, limits: settings.Fetch, clock: Clock, accept: Callable[[bytes], str | None], room: BufferRoom,
                 bodies: SimpleQueue[Body | Inline | None], finished: SimpleQueue[Any], trace: Trace | None) -> None:
        self._limits = limits
        self._clock = clock
        self._accept = accept
        self._room = room
        self._bodies = bodies
        self._finished = finished
        self._trace = trace

    def run(self) -> None:
        while (work := self._bodies.get()) is not None:
            ended = self._results(work)
            while len(ended) < _AT_ONCE and not self._bodies.empty():  # nobody else takes from it
                work = self._bodies.get()
                if work is None:
                    return
                ended += self._results(work)
            self._finished.put(ended)

    def _results(self, work: Body | Inline) -> list[Ended]:
        return self._of_body(work) if isinstance(work, Body) else self._of_inline(work.waiter)

    def _of_body(self, body: Body) -> list[Ended]:
        head = body.head
        content: bytes | Failure = body.parts[0] if len(body.parts) == 1 else b"".join(body.parts)
        body.parts.clear()
        if head.encoding not in PLAIN:
            assert isinstance(content, bytes)
            content = self._image(decompress(content, head.encoding, self._limits.max_bytes))
        job = body.job
        seconds = job.spent + job.spent_before
        size = len(content) if isinstance(content, bytes) else 0
        self._room.grown += size - body.size
        digest = hashlib.sha256(content).digest() if isinstance(content, bytes) else b""
        ended = []
        for waiter in job.waiters:
            if isinstance(content, Failure):
                outcome: Fetched | Failure = _with_url(content, waiter.url)
            else:
                outcome = Fetched(waiter.url, content, body.final_url, head.status, digest, head.etag,
                                  head.last_modified, body.fetched_at, seconds)
            ended.append(Ended(waiter, outcome, size, job.requests))
            size = 0  # the bytes are shared: they count once
        return ended

    def _of_inline(self, waiter: Waiter) -> list[Ended]:
        limits = self._limits
        if is_data(waiter.url):
            content = self._image(read_data(waiter.url, limits.max_bytes))
            final_url = "data:"
        else:
            content = self._image(read_file(waiter.url, limits.allow_folders, limits.max_bytes))
            final_url = waiter.url
        if isinstance(content, Failure):
            return [Ended(waiter, _with_url(content, waiter.url), 0, 0)]
        self._room.grown += len(content)
        digest = hashlib.sha256(content).digest()
        now = self._clock.now()
        return [Ended(waiter, Fetched(waiter.url, content, final_url, 200, digest, "", "", now, 0.0), len(content), 0)]

    def _image(self, content: bytes | Failure) -> bytes | Failure:
        if isinstance(content, Failure):
            return content
        if not content:
            return Failure.of("empty", "after decompression")
        return content if self._accept(content[:64]) else Failure.of("not_image", "unknown format")


def _with_url(failure: Failure, url: str) -> Failure:
    return Failure(failure.reason, failure.detail, failure.retriable, url)
