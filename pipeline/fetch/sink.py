"""A file in the place of memory: one long body, which goes on where it broke, also in another process.

Beside the file lies what is known of it (`NAME.from`: the URL at the end of all redirects, by its SHA-256, and its
strong entity tag).  A host is asked for the rest only with that tag (RFC 9110, 14.2 and 13.1.5): a body that changed
comes from its beginning.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from pipeline.fetch.answer import Head
from pipeline.fetch.conditions import identity
from pipeline.records import Failure

_STRONG = re.compile(r'"[\x21\x23-\x7e]{1,512}"')
_PART, _REFUSED = 206, 416
_FAR = 64 * 2**10
"""Bytes that a request must bring to count as one that got on."""
_MOST = 4096


class Stored(NamedTuple):
    """A body that is whole in its file.  url: as given; final_url: after redirects; size: bytes."""

    url: str
    final_url: str
    status: int
    etag: str
    size: int


class Sink:
    """Where the body of one URL goes.  size: bytes that are there.  error: why the file could not be written."""

    def __init__(self, path: Path) -> None:
        """Goes on with what another process left under `path`.  Raises OSError."""
        self.path, self._from = path, path.with_name(f"{path.name}.from")
        self._resource, self._etag = _known(self._from)
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+b")
        self.size = self._file.seek(0, os.SEEK_END)
        self.error: OSError | None = None
        self._total: int | None = None
        self._before = self.size
        if not self._etag:
            self._anew("", b"")

    def headers(self, url: str) -> list[str]:
        """That ask for the rest, where something is there and the URL is its own."""
        if not self.size or self._resource != identity(url):
            return []
        return [f"Range: bytes={self.size}-", f"If-Range: {self._etag}"]

    def begin(self, head: Head, url: str, asked: bool) -> Failure | None:
        """The head of an answer that has a body, or that refuses the rest; asked: for the rest."""
        self._before = self.size
        if head.status == _REFUSED and asked:
            self._anew("", b"")
            return Failure.of("protocol", "no such range", retriable=True)
        if head.status == _PART and asked and head.first == self.size and head.etag in ("", self._etag):
            self._total = head.total
            return None
        if head.status == _PART and not head.whole:
            self._anew("", b"")
            return Failure.of("protocol", "another range", retriable=True)
        self._total = head.length
        self._anew(head.etag if _STRONG.fullmatch(head.etag) else "", identity(url))
        return None

    def write(self, data: bytes) -> bool:
        """Whether it could be written."""
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            return False
        self.size += len(data)
        return True

    def got_on(self) -> bool:
        """Whether what came since this was asked last is worth another try."""
        before, self._before = self._before, self.size
        return self.size - before >= _FAR

    def is_whole(self) -> bool:
        """All that was announced is there and on its way to the disk."""
        try:
            self._file.flush()
        except OSError as error:
            self.error = error
            return False
        return self._total is None or self.size == self._total

    def done(self) -> None:
        """The file stays; nothing goes on with it any more."""
        self._file.close()
        self._from.unlink(missing_ok=True)

    def close(self) -> None:
        """The file stays, for whoever goes on."""
        try:
            self._file.close()
        except OSError as error:
            self.error = error

    def _anew(self, etag: str, resource: bytes) -> None:
        self._etag, self._resource, self.size = etag, resource, 0
        try:
            self._file.seek(0)
            self._file.truncate()
            self._from.write_text(json.dumps({"etag": etag, "resource": resource.hex()}))
        except OSError as error:
            self.error = error


def _known(path: Path) -> tuple[bytes, str]:
    """The resource and its tag, empty where nothing that can be believed says them."""
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(_MOST))
        resource, etag = bytes.fromhex(said["resource"]), said["etag"]
    except (OSError, ValueError, KeyError, TypeError):
        return b"", ""
    return (resource, etag) if isinstance(etag, str) and _STRONG.fullmatch(etag) else (b"", "")
