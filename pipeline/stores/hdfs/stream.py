"""A file of HDFS as a seekable stream: ranges are asked for as they are read; a broken read goes on where it was."""

from __future__ import annotations

import io
from typing import Any

import requests
import urllib3

from pipeline.errors import TemporaryError
from pipeline.stores.hdfs.webhdfs import Status, WebHdfs
from pipeline.stores.retrying import Retry

BUFFER = 1 << 20
_SKIPPED = 1 << 18
"""Bytes that are rather read than asked past."""


class _Replaced(Exception):
    """Another file stands at the path: no retry brings the old one back."""


class HdfsStream(io.RawIOBase):
    """Reads one file as it was when it was opened.  Raises TemporaryError where it is another one meanwhile."""

    def __init__(self, hdfs: WebHdfs, path: str, status: Status, retry: Retry) -> None:
        self._hdfs = hdfs
        self._path = path
        self._status = status
        self._retry = retry
        self._at = 0
        self._answer: requests.Response | None = None
        self._answer_at = 0
        self._broken = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._status.length}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._status.length - self._at)
        if wanted <= 0:
            return 0
        try:
            number = self._retry(lambda: self._read(view[:wanted]))
        except _Replaced as error:
            hint = "the next run reads the file again"
            raise TemporaryError(f"{self._path} was replaced while it was read", "", hint, 60.0) from error
        self._at += number
        return number

    def close(self) -> None:
        self._drop()
        super().close()

    def _read(self, view: memoryview) -> int:
        """Some of the bytes at the position, at least one."""
        if self._answer is not None and not self._skip():
            self._drop()
        if self._answer is None:
            self._begin()
        assert self._answer is not None
        try:
            number: int = self._answer.raw.readinto(view)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self._break_off()
            raise TemporaryError(
                f"reading {self._path} broke at byte {self._at}",
                str(error),
                "check with hdfs dfsadmin -report that its DataNode runs; Hathi tries it again",
            ) from error
        if number == 0:
            self._break_off()
            raise TemporaryError(
                f"{self._path} ended at byte {self._at} of {self._status.length}",
                "the server sent less than it has",
                "Hathi tries it again",
            )
        self._answer_at += number
        return number

    def _begin(self) -> None:
        """Ask from the position on.  What stands there after a break has to be what was opened, or parts of two mix."""
        answer = self._hdfs.open(self._path, self._at)
        if self._broken:  # looked at after the answer began: what is replaced later still, it does not show
            try:
                self._check()
            except BaseException:
                answer.close()
                raise
        self._answer, self._answer_at, self._broken = answer, self._at, False

    def _check(self) -> None:
        now = self._hdfs.status(self._path)
        if now is None or _identity(now) != _identity(self._status):
            raise _Replaced

    def _break_off(self) -> None:
        self._drop()
        self._broken = True

    def _skip(self) -> bool:
        """Whether the answer under way is or can be brought to the position."""
        gap = self._at - self._answer_at
        if gap == 0:
            return True
        if not 0 < gap <= _SKIPPED:
            return False
        assert self._answer is not None
        try:
            while gap > 0 and (skipped := len(self._answer.raw.read(gap))):
                self._answer_at += skipped
                gap -= skipped
        except (urllib3.exceptions.HTTPError, OSError):
            self._broken = True
            return False  # asked anew at the position
        return gap == 0

    def _drop(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None


def _identity(status: Status) -> tuple[int, int, int]:
    return status.id, status.length, status.modified
