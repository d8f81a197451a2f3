"""`s3://bucket/key`: images in buckets that the settings name, read with the credentials of the pipeline's bucket."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.clock import Clock
from pipeline.errors import NotFound, PipelineError
from pipeline.fetch.buffer_budget import BufferRoom
from pipeline.fetch.job import Waiter
from pipeline.records import Failure
from pipeline.settings import Bucket, Fetch

if TYPE_CHECKING:
    from pipeline.stores.s3.connection import Connection

THREADS = 8
"""Objects that are read at the same time; with the buffer full, each of them may be one body beyond it."""
_PAUSE = 0.05
_PIECE = 2**20
_S3 = re.compile(r"s3[an]?://(?:[^/]*@)?([^/]*)/?(.*)", re.DOTALL | re.IGNORECASE)
"""s3a: and s3n: are Hadoop's names for the same; keys that stand before the bucket are not used."""


class Object(NamedTuple):
    """An object's bytes, and its Content-Encoding."""

    content: bytes
    encoding: str = ""


ReadObject = Callable[[str, str, int, Callable[[], bool]], Object | Failure]
"""(bucket, key, most bytes, whether there is still time) -> the object, one byte more than `most` of a longer one."""


class Read(NamedTuple):
    """An object that was read, or why not.  seconds: what that took."""

    waiter: Waiter
    content: bytes | Failure
    encoding: str
    seconds: float


def is_object(url: str) -> bool:
    return _S3.match(url) is not None


class ObjectReaders:
    """Threads beside the one that fetches; what they read goes to the one that hashes."""

    def __init__(
        self, limits: Fetch, read: ReadObject, clock: Clock, room: BufferRoom, done: SimpleQueue[Any], guarded: Any
    ) -> None:
        """done: gets each Read.  guarded(work): runs work, and reports what it raises."""
        self._limits = limits
        self._read = read
        self._clock = clock
        self._room = room
        self._done = done
        self._waiting: SimpleQueue[Waiter | None] = SimpleQueue()
        self._guarded = guarded
        self._threads: list[Thread] = []
        self._closed = False

    def submit(self, waiter: Waiter) -> None:
        """Read this one soon; threads begin with the first ones."""
        if len(self._threads) < THREADS:
            thread = Thread(target=self._guarded, args=(self._run,), name="fetch-object", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._waiting.put(waiter)

    def close(self) -> None:
        """Nothing further is begun; returns when the threads have ended."""
        self._closed = True
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (waiter := self._waiting.get()) is not None and not self._closed:
            while self._room.full() and not self._closed and not self._late(waiter):
                self._clock.sleep(_PAUSE)
            began = self._clock.monotonic()
            late = Failure.of("host_busy", "batch deadline") if self._late(waiter) else None
            found = late or self._object(waiter, began)
            content, encoding = (found, "") if isinstance(found, Failure) else found
            self._done.put(Read(waiter, content, encoding, self._clock.monotonic() - began))

    def _late(self, waiter: Waiter) -> bool:
        return waiter.deadline is not None and self._clock.monotonic() >= waiter.deadline

    def _object(self, waiter: Waiter, began: float) -> Object | Failure:
        """Capped, and checked against the settings' buckets."""
        place = _S3.match(waiter.url)
        assert place is not None
        bucket, key = place[1], place[2]
        if not bucket or not key or len(waiter.url) > self._limits.max_url_length:
            return Failure.of("bad_url", "malformed" if len(waiter.url) <= self._limits.max_url_length else "too long")
        if bucket not in self._limits.allow_buckets:
            return Failure.of("blocked", "bucket")
        ends = began + self._limits.total_seconds

        def on_time() -> bool:
            return not self._closed and self._clock.monotonic() < ends and not self._late(waiter)

        found = self._read(bucket, key, self._limits.max_bytes, on_time)
        if isinstance(found, Failure):
            return found
        if len(found.content) > self._limits.max_bytes:
            return Failure.of("too_large", "body")
        return found if found.content else Failure.of("empty", "200")


def reader_of(settings: Bucket, limits: Fetch) -> ReadObject:
    """Reads through S3 as the pipeline's own bucket is read; the client is opened with the first object."""
    opened: list[Connection] = []

    def connection() -> Connection:
        from pipeline.stores.retrying import Retry
        from pipeline.stores.s3.connection import Connection

        if not opened:
            opened.append(Connection(settings, Retry(min(settings.retry_seconds, limits.total_seconds / 2))))
        return opened[0]

    def read(bucket: str, key: str, most: int, on_time: Callable[[], bool]) -> Object | Failure:
        from pipeline.stores.s3.reading import open_object  # boto3 takes its time to import

        parts: list[bytes] = []
        size = 0
        try:
            with contextlib.closing(open_object(connection(), bucket, key)) as stream:
                encoding = str(getattr(stream.raw, "encoding", ""))
                while size <= most and (part := stream.read(min(_PIECE, most + 1 - size))):
                    parts.append(part)
                    size += len(part)
                    if not on_time():
                        return Failure.of("timeout", "body")
        except PipelineError as error:
            return _failure(error)
        return Object(b"".join(parts), encoding)

    return read


def _failure(error: PipelineError) -> Failure:
    """The failure behind a store's typed error: by the status where the server gave one."""
    from pipeline.stores.s3.errors import about_keys, about_reach

    if isinstance(error, NotFound):
        return Failure.of("http_4xx", "404")
    if about_keys(error):
        return Failure.of("http_4xx", "403", retriable=True)  # ours to set right, and then the image can be had
    status = int(getattr(error.__cause__, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if status == 429:
        return Failure.of("http_429", "429")
    if 400 <= status < 500:
        return Failure.of("http_4xx", str(status))
    if 500 <= status < 600:
        return Failure.of("http_5xx", str(status))
    if about_reach(error):
        return Failure.of("connect", "failed")
    return Failure.of("protocol", "not read from S3")
