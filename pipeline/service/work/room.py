"""The disk that workers work on: what it means that it is full, and folders that a killed process leaves there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import TemporaryError

NO_ROOM = 82
"""The exit code of a child whose disk took no more."""
REST_SECONDS = 20.0
"""So long a worker whose disk is full leaves the queue to others."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOCK = ".lock"


def is_full(error: BaseException | None) -> bool:
    """Whether a disk that takes no more bytes is behind an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def no_room(scratch: Path, detail: str) -> TemporaryError:
    """What a worker says of itself."""
    says = "the disk that this worker works on is full"
    return TemporaryError(says, detail, f"make room where {scratch} lies", REST_SECONDS)


def deleted(folder: Path) -> None:
    """By another name first: a thread that still waits for the bucket finds no folder to write to any more."""
    with contextlib.suppress(OSError):
        folder = folder.rename(folder.with_name(f"{folder.name}-over"))
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def owned(root: Path, prefix: str) -> Iterator[Path]:
    """A new folder below root, deleted at the end; those of processes that were killed are deleted before.

    A process has its folder as long as it holds the lock beside it.  Raises OSError.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{prefix}{_LOCK}").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)  # nobody sweeps between a folder and its lock
        _sweep(root, prefix)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
        lock = folder.with_name(folder.name + _LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        Path(lock.name).unlink(missing_ok=True)
        lock.close()


def _sweep(root: Path, prefix: str) -> None:
    for path in root.glob(f"{prefix}?*{_LOCK}"):
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(path.with_name(path.name.removesuffix(_LOCK)), ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
