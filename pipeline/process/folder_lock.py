"""A lock on a folder, which ends with the process that has it: whoever makes something there, or deletes it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def lock_folder(folder: Path, *, shared: bool = False) -> int | None:
    """A descriptor that has the lock until it is closed; None where there is no folder, or somebody has the lock.

    shared: with others who share it; it waits for who has it alone.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


@contextmanager
def folder_lock(folder: Path, *, shared: bool = False) -> Iterator[bool]:
    """As `lock_folder`, let go at the end; whether it is had."""
    handle = lock_folder(folder, shared=shared)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)
