"""A folder that appears whole: filled under another name beside it."""

from __future__ import annotations

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

    Raises ConfigError where `path` is there already or cannot be made.
    """
    if path.exists():
        raise ConfigError(f"{path} is there already", "nothing is overwritten", "give another name, or remove it first")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise ConfigError(f"{path} cannot be made", error.strerror or str(error), "give another place") from error
    try:
        yield made
        made.chmod(0o755)
        os.rename(made, path)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
