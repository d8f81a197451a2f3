"""Interrupts from the keyboard that come while a program starts, and must not be lost there.

Python raises KeyboardInterrupt wherever it is.  In a module that is being imported another exception may come of it; in
a destructor or a callback, and each import has some, Python prints it and goes on as if nobody had asked.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT
"""The exit code of a process that an interrupt ended, as shells know it."""
_SHOW_CURSOR = "\r\x1b[?25h"


@contextlib.contextmanager
def ended_by_interrupts() -> Iterator[None]:
    """While modules are imported an interrupt just ends the process.

    Where a program hears them itself, and where it ignores them, nothing changes; nor in a thread, which hears none.
    """
    if (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def keep_interrupts() -> None:
    """From now on an interrupt that Python would drop ends this process."""
    before = sys.unraisablehook

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if issubclass(what.exc_type, KeyboardInterrupt):
            end_at_once("interrupted")
        before(what)

    sys.unraisablehook = dropped


def end_at_once(text: str) -> NoReturn:
    """Ends this process in the middle of whatever it does, after a line on stderr; from a handler, too."""
    say_at_once(text)
    os._exit(INTERRUPTED)


def say_at_once(text: str) -> None:
    """Puts a line on stderr past all buffers and locks, which the interrupted code may hold."""
    shown = _SHOW_CURSOR if os.isatty(2) else ""  # a progress bar has hidden it
    with contextlib.suppress(OSError):  # nobody reads it any more, which is no reason to go on
        os.write(2, f"{shown}{text}\n".encode())
