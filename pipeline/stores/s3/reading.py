"""An object as a seekable stream: one request while it is read on, smaller ones behind each seek.

A request that ends early is taken up where it ended, under the ETag of the first one: an object that was written
anew in between is an error, never a mixture.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

from pipeline.errors import Exists, PermanentError, PipelineError, TemporaryError
from pipeline.stores.s3.connection import Connection
from pipeline.stores.s3.errors import CAUGHT, typed
from pipeline.stores.store import too_long

READ_AHEAD = 1 << 18
"""Bytes that are read at once where a caller asks for few."""
_FIRST, _LONGEST = 1 << 20, 1 << 26
"""Bytes of the first request behind a seek, and of the longest: each further one in sequence asks for twice as many."""


def open_object(connection: Connection, bucket: str, key: str) -> io.BufferedReader:
    """The object's content.  Raises NotFound at once; reading raises TemporaryError once `retry` has given up."""
    return io.BufferedReader(_Object(connection, bucket, key), READ_AHEAD)


def whole_object(connection: Connection, bucket: str, key: str, at_most: int | None = None) -> bytes:
    """The content of a small object, its checksum verified where the server keeps one.

    Raises TooLong for one of more than `at_most` bytes, by what the server says of it before it sends it.
    """

    def once() -> bytes:
        answer = connection.once("get_object", Bucket=bucket, Key=key)
        body = answer["Body"]
        try:
            with contextlib.closing(body):
                if at_most is not None and answer["ContentLength"] > at_most:
                    raise too_long(key, at_most)
                content: bytes = body.read()
                return content
        except CAUGHT as error:
            raise typed(error, f"{connection.where}: {key}") from error

    return connection.retry(once)


class _Object(io.RawIOBase):
    def __init__(self, connection: Connection, bucket: str, key: str) -> None:
        super().__init__()
        self._connection = connection
        self._place = {"Bucket": bucket, "Key": key}
        answer = connection.call("get_object", **self._place)
        self.encoding: str = answer.get("ContentEncoding", "")
        self._etag: str = answer["ETag"]
        self._length: int = answer["ContentLength"]
        self._position = 0
        self._window = _LONGEST
        self._hold(answer["Body"], 0, self._length)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        if start + offset < 0:
            raise ValueError(f"negative seek position {start + offset}")
        self._position = start + offset
        if self._position != self._at:
            self._window = _FIRST
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._length - self._position)]
        if not len(view):
            return 0
        got = self._connection.retry(lambda: self._some(view))
        self._position += got
        if self._position == self._length:
            self._finish()
        return got

    def readall(self) -> bytes:
        content = memoryview(bytearray(max(0, self._length - self._position)))
        filled = 0
        while filled < len(content):
            filled += self.readinto(content[filled:])
        return bytes(content)

    def close(self) -> None:
        self._drop()
        super().close()

    def _hold(self, body: Any, start: int, end: int) -> None:
        self._body, self._at, self._end = body, start, end

    def _drop(self) -> None:
        body, self._body = getattr(self, "_body", None), None
        if body is not None:
            body.close()

    def _some(self, view: memoryview) -> int:
        """At least one byte from where we are, from the open request or another one."""
        if self._body is None or self._at != self._position or self._at == self._end:
            self._reach()
        try:
            got: int = self._body.readinto(view[: self._end - self._at])
        except CAUGHT as error:
            self._drop()
            raise typed(error, self._where) from error
        if got == 0:
            self._drop()
            said = f"{self._where}: {self._at} of {self._end} bytes"
            raise TemporaryError("an answer of S3 ended early", said, "Hathi tries it again by itself")
        self._at += got
        return got

    def _reach(self) -> None:
        """A request that begins where we are."""
        self._drop()
        start, end = self._position, min(self._length, self._position + self._window)
        self._window = min(2 * self._window, _LONGEST)
        wanted = f"bytes={start}-{end - 1}"
        try:
            answer = self._connection.once("get_object", **self._place, Range=wanted, IfMatch=self._etag)
        except Exists as error:  # 412: If-Match does not hold
            hint = "find out which other program writes into this bucket: Hathi never changes an object"
            raise PermanentError("an object changed while it was read", self._where, hint) from error
        if not str(answer.get("ContentRange", "")).startswith(f"bytes {start}-"):
            answer["Body"].close()
            hint = "use a server or a proxy that supports Range requests"
            raise PermanentError("the S3 server sent another range than the requested one", self._where, hint)
        self._hold(answer["Body"], start, end)

    def _finish(self) -> None:
        """The end of the first request: only now its checksum can be told."""
        body, self._body = self._body, None
        try:
            with contextlib.closing(body):
                body.read(1)
        except CAUGHT as error:
            known: PipelineError = typed(error, self._where)
            raise known from error

    @property
    def _where(self) -> str:
        return f"{self._connection.where}: {self._place['Key']}"
