"""The verbs of a store (docs/protocol.md 2): what bucket and lake can be asked to do.

There is one set of verbs for local folders, S3 and HDFS, and one suite of tests that each backend has to pass
(tests/contract).  The verbs promise only what all of them can keep: a get sees a finished put; a list sees what was
put before it began; put_new and rename_new fail where something stands.  A time that a store tells is its own, and
times are compared only with times of the same store.

Errors say what a caller may do: NotFound and Exists are answers; TemporaryError may be tried again (stores.retrying is
the only place that does); Unknown means that the verb may have had its effect or not; PermanentError needs a person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from pipeline.errors import UNREADABLE, TooLong

Passed = Callable[[str, str], None]
"""Told of a path that is passed over, and why in words; empty where that is a convention."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a listing.  A key that ends in `/` stands for everything under it (folders=True)."""

    key: str
    size: int
    modified: float
    """Seconds since 1970, by the store's clock."""
    unread: str = ""
    """Why it is never read, in words: a link that leads out of the lake, a pipe; empty for what can be."""


@dataclass(frozen=True)
class Listing:
    """A listing in the order of keys, and the store's own time when it began (seconds since 1970)."""

    now: float
    entries: Iterator[Entry]

    def __iter__(self) -> Iterator[Entry]:
        return self.entries


@dataclass(frozen=True, slots=True)
class Stat:
    """What stands at a path of a lake.  modified: milliseconds since 1970; id: the store's own, 0 without."""

    path: str
    length: int
    modified: int
    id: int = 0
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class Examined:
    """One step of looking at a server from the ground up.  hint: what to do where it is not ok."""

    step: str
    ok: bool
    said: str
    hint: str = ""


def too_long(key: str, at_most: int) -> TooLong:
    """The error of an object that is longer than its reader takes."""
    return TooLong(
        f"too long to be read: {key}",
        f"more than {at_most} bytes",
        UNREADABLE,
    )


class Store(Protocol):
    """A bucket, or a lake as far as both can do the same.

    Any verb may raise TemporaryError (try again) or PermanentError; `NotFound` where nothing stands.
    """

    def list(self, prefix: str, *, after: str = "", until: str = "", folders: bool = False) -> Listing:
        """Keys that begin with prefix, greater than `after`, not greater than `until`, in byte order, streamed."""

    def get(self, key: str, at_most: int | None = None) -> bytes:
        """The whole content of a small object.  at_most: bytes; TooLong, and no more of it is read, beyond them.

        FormatError where a folder stands.
        """

    def open(self, key: str) -> BinaryIO:
        """The content as a seekable stream."""

    def put(self, key: str, body: bytes | Path) -> None:
        """Write or overwrite; readers see the old content or the new, never a part."""

    def put_new(self, key: str, body: bytes) -> None:
        """Write if nothing stands there.  Exists: refused.  Unknown: perhaps done.  Callers use `commit`."""

    def delete(self, key: str) -> None:
        """Nothing stands there afterwards; deleting what is absent is no error."""

    def sweep(self, seconds: float) -> int:
        """Forget what writers that were killed so long ago left half written, which no listing shows; how many."""

    def examine(self, scratch: str) -> Iterator[Examined]:
        """Reach, identity, list, write, put-if-absent refused the second time ...; ends after the first that is not ok.

        scratch: a prefix, ending in `/`, under which keys are written and deleted again.  Raises nothing of a server.
        """

    def credentials_end(self) -> float | None:
        """When what we are believed for ends and nothing renews it, seconds since 1970; None: never, or renewed."""

    def forgets(self, prefix: str) -> str:
        """The server's own rule that would delete keys under a prefix, in words; empty where there is none."""


class Lake(Store, Protocol):
    """What a file system can do beyond a bucket."""

    def stat(self, path: str) -> Stat | None:
        """None where nothing stands.  Raises NotAFile for what is neither a file nor a folder that may be read."""

    def walk(self, path: str, passed: Passed | None = None) -> Iterator[Stat]:
        """The files under a folder, at any depth, in the order of their paths; hidden ones (`.`, `_`) left out.

        passed: told of each path that is left out, with the reason in words; of what is hidden with none.  Without it a
        folder that cannot be read is an error.
        """

    def make_folder(self, path: str) -> None:
        """The folder and those above it; existing ones are no error."""

    def rename_new(self, source: str, target: str) -> None:
        """Move a file or a folder where nothing stands.  Exists, NotFound (no source) or Unknown."""

    def rename_over(self, source: str, target: str) -> None:
        """Move a file over another, in one instant.  NotFound where the source is gone."""

    def delete_folder(self, path: str) -> None:
        """The folder and all in it; absent is no error."""
