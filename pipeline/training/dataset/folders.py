"""A folder that appears whole: filled under another name beside it, which is locked while somebody fills it."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.process.folder_lock import lock_folder


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """An empty folder that becomes `path` at the end, and is gone after an error.

    What a killed process left of the same folder goes first.

    Raises ConfigError where `path` is there already or cannot be made.
    """
    with beside(path) as made:
        yield made
        made.chmod(0o755)
        os.rename(made, path)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """An empty folder of our own beside what will be `path`, for as long as it is made; it is gone afterwards.

    Raises as `whole`.
    """
    if path.exists():
        raise ConfigError(f"{path} is there already", "nothing is overwritten", "give another name, or remove it first")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        at_work(path)
        made = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        held = lock_folder(made)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made", error.strerror or str(error), "give another place") from error
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if held is not None:
            os.close(held)


def at_work(path: Path) -> bool:
    """Whether somebody fills a folder that is to become `path`; what a killed process left of one goes."""
    busy = False
    for left in path.parent.glob(f".{glob.escape(path.name)}-????????"):
        handle = lock_folder(left)
        if handle is None:
            busy = busy or left.exists()
        else:
            shutil.rmtree(left, ignore_errors=True)
            os.close(handle)
    return busy
