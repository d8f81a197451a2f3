"""A folder that appears whole: filled under another name beside it, which is locked while somebody fills it."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """An empty folder that becomes `path` at the end, and is gone after an error.

    What a killed process left of the same folder goes first.

    Raises ConfigError where `path` is there already or cannot be made.
    """
    if path.exists():
        raise ConfigError(f"{path} is there already", "nothing is overwritten", "give another name, or remove it first")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}-????????"):
            if (handle := _locked(left)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(handle)
        made = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        held = _locked(made)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made", error.strerror or str(error), "give another place") from error
    try:
        yield made
        made.chmod(0o755)
        os.rename(made, path)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    finally:
        if held is not None:
            os.close(held)


def _locked(folder: Path) -> int | None:
    """A handle that locks the folder until it is closed or its process is gone; None where somebody has the lock."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
