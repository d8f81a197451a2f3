"""A store as a person asks it who waits for the answer: within seconds, or not at all.

A server that is down, a name that nobody resolves, a mount that hangs: each can keep a request for minutes.  Here each
store is asked by a thread of its own, which is left behind when it hangs, and only so much waiting is spent on a store
altogether.  Once that is used up, the store counts as one that does not answer, and is not asked any more.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, TypeVar, cast

from pipeline.errors import PipelineError, TemporaryError
from pipeline.settings import Settings
from pipeline.stores.store import Listing, Store

R = TypeVar("R")
S = TypeVar("S", bound=Store)
SECONDS = 5.0
"""So long a person waits for a store, all that is slow together."""
QUICK = 0.5
"""An answer within so many seconds costs nothing of that: a large store has many."""
CONNECT, READ, RETRY = 2.0, 4.0, 2.0
"""A request's own patience, so that a second server, or a second try, gets its turn."""
NAMES = "timeout:1 attempts:2"
"""So a name server that hangs is named as such within `SECONDS` (resolv.conf(5)); read with the first name."""
PIECE = 1_000
"""Entries of a listing that are fetched at once."""


def brief(settings: Settings) -> Settings:
    """The same, but a request gives up within seconds; this process asks name servers as impatiently from now on."""
    os.environ.setdefault("RES_OPTIONS", NAMES)
    bucket = settings.bucket
    lakes = {}
    for name, lake in settings.lakes.items():
        hdfs = lake.hdfs
        limits = _limits(hdfs.connect_seconds, hdfs.read_seconds, hdfs.retry_seconds)
        lakes[name] = lake.model_copy(update={"hdfs": hdfs.model_copy(update=limits)})
    limits = _limits(bucket.connect_seconds, bucket.read_seconds, bucket.retry_seconds)
    return settings.model_copy(update={"bucket": bucket.model_copy(update=limits), "lakes": lakes})


def _limits(connect: float, read: float, retry: float) -> dict[str, float]:
    return {
        "connect_seconds": min(connect, CONNECT), "read_seconds": min(read, READ), "retry_seconds": min(retry, RETRY)
    }  # fmt: skip


class Patience:
    """One thread that asks, and what is left of the time that its asker has for it."""

    def __init__(
        self, name: str, seconds: float = SECONDS, monotonic: Callable[[], float] = time.monotonic, at: str = ""
    ) -> None:
        """at: where what is asked is, for the detail of its silence."""
        self._name = name
        self._at = at
        self._seconds = self._left = seconds
        self._monotonic = monotonic
        self._asked: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._gone = False
        self._last = monotonic()
        threading.Thread(target=self._work, name=f"asks {name}", daemon=True).start()

    def _work(self) -> None:
        while True:
            self._asked.get()()

    def close(self) -> None:
        """Its thread ends, once nothing keeps it waiting."""
        self._asked.put(sys.exit)

    def begin(self, ask: Callable[[], R]) -> Callable[[], R]:
        """Begin to ask; what is given back waits for the answer.  That raises TemporaryError: there is none in time."""
        answers: queue.SimpleQueue[tuple[R | None, BaseException | None]] = queue.SimpleQueue()

        def work() -> None:
            try:
                answers.put((ask(), None))
            except BaseException as error:  # raised again in the thread that waits
                answers.put((None, error))

        if self._gone:
            raise self._silent()
        began = self._monotonic()
        if began - self._last >= self._seconds:
            self._left = self._seconds  # a look of its own: what was slow in the one before does not count
        self._asked.put(work)

        def answer() -> R:
            try:
                found, error = answers.get(timeout=max(0.0, self._left - (self._monotonic() - began)))
            except queue.Empty:
                self._gone = True
                raise self._silent() from None
            self._last = self._monotonic()
            self._left -= max(0.0, self._last - began - QUICK)
            if error is not None:
                raise error
            return cast(R, found)

        return answer

    def __call__(self, ask: Callable[[], R]) -> R:
        """Ask and wait.  Raises what the store raises, and TemporaryError: no answer in time."""
        with self._lock:
            return self.begin(ask)()

    def _silent(self) -> TemporaryError:
        return TemporaryError(
            f"{self._name} does not answer within {self._seconds:.0f} s",
            self._at,
            "its server hangs, or the way to it: see its log, and start it again; `hathi doctor` tests each step",
        )


class _Hurried:
    """Passes each verb on to the thread of its store; what is read bit by bit is read there, too."""

    def __init__(self, store: object, patience: Patience) -> None:
        self._store = store
        self._patience = patience

    def __repr__(self) -> str:
        return repr(self._store)

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        if not callable(verb):
            return verb

        def call(*args: Any, **options: Any) -> Any:
            found = self._patience(lambda: verb(*args, **options))
            if isinstance(found, Listing):
                return Listing(found.now, self._pieces(found.entries))
            if isinstance(found, io.IOBase):
                return io.BufferedReader(_Stream(cast(BinaryIO, found), self._patience))
            return self._pieces(found) if isinstance(found, Iterator) else found

        return call

    def _pieces(self, entries: Iterable[R]) -> Iterator[R]:
        rest = iter(entries)
        while piece := self._patience(lambda: list(islice(rest, PIECE))):
            yield from piece


class _Stream(io.RawIOBase):
    """A stream that is read by the thread of its store."""

    def __init__(self, stream: BinaryIO, patience: Patience) -> None:
        super().__init__()
        self._stream = stream
        self._patience = patience

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def readinto(self, buffer: Any, /) -> int:
        content = self._patience(lambda: self._stream.read(len(buffer)))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._patience(lambda: self._stream.seek(offset, whence))

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def hurried(stores: Mapping[str, S], seconds: float = SECONDS) -> dict[str, S]:
    """The same stores for somebody who waits, all asked for a first answer at the same time.

    stores: by what sentences call them.  One that gives none is not asked again: each of its verbs raises
    TemporaryError at once.
    """
    patience = {name: Patience(name, seconds, at=repr(store)) for name, store in stores.items()}
    first = {name: patience[name].begin(partial(_any, store)) for name, store in stores.items()}
    for wait in first.values():
        with contextlib.suppress(PipelineError):  # it is for whoever asks next; here it counts that there is an answer
            wait()
    return {name: cast(S, _Hurried(store, patience[name])) for name, store in stores.items()}


def _any(store: Store) -> bool:
    """The smallest question that reaches a server."""
    return any(True for _ in store.list("_hathi/", folders=True))
