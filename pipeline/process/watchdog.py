"""Alive but hung: a process at work that fetches, computes and commits nothing ends itself (docs/protocol.md 13).

What counts as progress: whatever is noted (a fetch that ended, an image decoded, a pass of the net, a call of a store
that came back) and whatever grows in the spill folder, so that a merge of many minutes is seen to live.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from pipeline.clock import Clock
from pipeline.process.stop import try_to_say
from pipeline.times import to_the_second

S = TypeVar("S")

LOOKS = 60
"""So many looks in the time after which a process counts as hung."""
UPLOAD_BYTES_PER_SECOND = 2**18
"""A store that takes a file at this pace is slow, not hung: its length gives it so much more time."""


class Watch:
    """Whether a process at work gets on.  `note` and `working` are for the workers, `hung` for one onlooker."""

    def __init__(self, seconds: float, clock: Clock, spill: Path | None = None) -> None:
        """seconds: without progress until the process counts as hung.  spill: the folder whose growth is progress."""
        self._limit = seconds
        self._clock = clock
        self._spill = spill
        self._notes = 0
        self._turns = 0
        self._at_work = False
        self._allowed = 0.0
        self._seen: object = None
        self._looked = clock.monotonic()
        self._still = 0.0

    @property
    def seconds(self) -> float:
        return self._limit

    @property
    def at_work(self) -> bool:
        return self._at_work

    def note(self, allow: float = 0.0) -> None:
        """Something was done.  allow: the next thing may take so many seconds more."""
        self._notes += 1
        self._allowed = allow

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Around a turn: between two of them a process is idle, and never hung."""
        self._turns += 1
        self._at_work = True
        try:
            yield
        finally:
            self._at_work = False

    def hung(self) -> bool:
        """Whether nothing was done for too long.  To be asked LOOKS times in that time.

        Time in which nobody could look counts as one look: a process that was frozen is not hung.
        """
        now = self._clock.monotonic()
        elapsed = min(now - self._looked, 2 * self._limit / LOOKS)
        self._looked = now
        seen = (self._notes, self._turns, _content(self._spill))
        if not self._at_work or seen != self._seen:
            self._seen, self._still = seen, 0.0
            return False
        self._still += elapsed
        return self._still >= self._limit + self._allowed


def _content(folder: Path | None) -> tuple[int, int]:
    """Number of files and bytes below a folder."""
    files = size = 0
    for where, _, names in os.walk(folder) if folder is not None else ():
        for name in names:
            try:
                size += os.stat(os.path.join(where, name)).st_size
            except FileNotFoundError:
                continue
            files += 1
    return files, size


def noting(store: S, watch: Watch) -> S:
    """The same store; each call that comes back is noted."""
    return cast(S, _Noting(store, watch))


class _Noting:
    """Passes each verb on, notes that it came back, and how long a large file may take."""

    def __init__(self, store: object, watch: Watch) -> None:
        self._store = store
        self._watch = watch

    def __repr__(self) -> str:
        return repr(self._store)

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        if not callable(verb):
            return verb

        def call(*args: Any, **options: Any) -> Any:
            for one in args:
                if isinstance(one, Path):
                    self._watch.note(one.stat().st_size / UPLOAD_BYTES_PER_SECOND)
            done = verb(*args, **options)
            self._watch.note()
            return done

        return call


@contextlib.contextmanager
def watched(
    watch: Watch, stacks: Path, say: Callable[[str], None], kill: Callable[[], None] | None = None
) -> Iterator[None]:
    """Look for as long as the work runs; a hung process writes the stacks of its threads to a file and is killed.

    stacks: the file, appended to.  A process that is stuck in a library which does not let go of the interpreter
    cannot look after itself: the interpreter's own timer does the same for it, some looks later.
    """
    ended = threading.Event()
    pause = watch.seconds / LOOKS
    stacks.parent.mkdir(parents=True, exist_ok=True)

    def look() -> None:
        with stacks.open("a") as file:
            while not ended.wait(pause):
                if watch.hung():
                    _dump(file, watch)
                    _end(watch, stacks, say, kill)
                    return
                if watch.at_work:
                    faulthandler.dump_traceback_later(watch.seconds + 5 * pause, exit=True, file=file)
                else:
                    faulthandler.cancel_dump_traceback_later()
            faulthandler.cancel_dump_traceback_later()

    onlooker = threading.Thread(target=look, name="watchdog", daemon=True)
    onlooker.start()
    try:
        yield
    finally:
        ended.set()
        onlooker.join(5.0)
        with contextlib.suppress(OSError):
            if stacks.stat().st_size == 0:
                stacks.unlink()


def _dump(file: Any, watch: Watch) -> None:
    stamp = to_the_second(time.time())
    file.write(f"{stamp} pid {os.getpid()}: nothing done for {watch.seconds:.0f} s; the threads:\n")
    file.flush()
    faulthandler.dump_traceback(file=file, all_threads=True)


def _end(watch: Watch, stacks: Path, say: Callable[[str], None], kill: Callable[[], None] | None) -> None:
    what = f"Alert: this process fetched, computed and committed nothing for {watch.seconds:.0f} s"
    try_to_say(say, f"{what}; it kills itself now; {stacks} shows where it hung; the next start continues its work")
    if kill is not None:
        kill()
    else:
        os.kill(os.getpid(), signal.SIGKILL)
