"""What a fork of this process must neither keep nor end.

Hathi starts other programs and never forks.  A library may fork us without asking: such a process has our signal
handlers, our wake-up socket and our descriptors, and it may unwind through our frames.  Nothing of that is its own.

A fork that the interpreter makes (os.fork, multiprocessing) is told here.  A fork that a library makes in C cannot be
told: what it holds must be harmless by itself.  So locks belong to a process and not to a descriptor (`process.lock`),
and what is heard on the wake-up socket counts only if this process has written it (`process.stop`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

EXIT_SECONDS = 5.0
"""So long may what libraries do at the exit of a process take."""

_UNDO: dict[object, Callable[[], None]] = {}
"""What a fork does first: a fact of this process, as its descriptors are."""


@contextlib.contextmanager
def undone_in_forks(undo: Callable[[], None]) -> Iterator[None]:
    """Each fork that the interpreter makes in the meantime calls `undo` before anything else.  It must not raise."""
    key = object()
    _UNDO[key] = undo
    try:
        yield
    finally:
        _UNDO.pop(key, None)


@contextlib.contextmanager
def at_the_end(cleanup: Callable[[], None]) -> Iterator[None]:
    """Call `cleanup` at the end, in the process that came in: a fork that leaves through here cleans nothing up."""
    owner = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == owner:
            cleanup()


def leave(code: int) -> NoReturn:
    """End this process with a code: at once, or after EXIT_SECONDS where a library has it wait.

    At its exit the interpreter waits for threads and for processes that libraries began, and that nobody may ever end.
    """

    def end() -> None:
        time.sleep(EXIT_SECONDS)
        os._exit(code)

    threading.Thread(target=end, name="exit", daemon=True).start()
    sys.exit(code)


def _undo_all() -> None:
    while _UNDO:
        _UNDO.popitem()[1]()


os.register_at_fork(after_in_child=_undo_all)
