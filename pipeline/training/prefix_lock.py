"""One training at a time writes the files of a snapshot_prefix.

A flock on a file that is open for reading: a disk that the kernel makes read-only under a training is not held by it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from pipeline.errors import SolverError

NAME = "training.lock"
"""Of the process that trains: the file stays, as every lock's does."""


def take(held: contextlib.ExitStack, path: Path) -> None:
    """Holds the lock until `held` ends, or until the process is gone.

    Where the file cannot be made, nothing is held: whoever looks whether snapshots can be written there says so.
    Raises SolverError, with who has it, where another training does.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return
    held.callback(os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            return  # a file system without locks: nobody can hold one there
        says = f"another training writes the files of this snapshot_prefix: {path} is locked"
        hint = "wait until it ends, or give this solver a snapshot_prefix of its own"
        raise SolverError(says, path.read_text().strip(), hint) from error
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
        path.write_text(f"pid {os.getpid()}\n")
