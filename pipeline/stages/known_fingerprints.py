"""Fingerprints that this host has read from files before: a net of 240 MB is not hashed anew by each run.

A file is taken for the one that was hashed where its path, device, inode, size and both its times are the same, and
these times lay two seconds or more before it was hashed: whoever writes a file later, or puts another in its place,
changes one of them.  A box that computes reads its own weights all the same, and refuses a plan of another fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline import __version__
from pipeline.settings import FeatureSet

FOLDER = "fingerprints"
"""Below the state folder."""
SETTLED = 2.0
"""So many seconds old a file has to be, so that a later write changes its time."""
MOST = 200
"""Fingerprints that are kept; the oldest go."""


def fingerprint_of(
    state: Path, feature_set: FeatureSet, files: Sequence[str], read: Callable[[], str], now: float | None = None
) -> str:
    """What `read` gives, remembered below the state folder.

    files: all that decide it, beside the set's settings.  now: this host's time.  What cannot be remembered is read
    each time.
    """
    stamps = [_stamp(path) for path in files]
    if not stamps or any(one is None for one in stamps):
        return read()
    text = json.dumps([__version__, feature_set.model_dump(mode="json", exclude={"root"}), stamps], sort_keys=True)
    path = state / FOLDER / hashlib.sha256(text.encode()).hexdigest()[:32]
    known = _known(path)
    if known:
        return known
    began = time.time() if now is None else now
    found = read()
    settled = all(one is not None and one.newest < (began - SETTLED) * 1e9 for one in stamps)
    if found and settled and stamps == [_stamp(one) for one in files]:
        _remember(path, found)
    return found


class _Stamp(NamedTuple):
    """What changes with a file's content, or its place.  Times in nanoseconds."""

    path: str
    device: int
    inode: int
    size: int
    written: int
    changed: int

    @property
    def newest(self) -> int:
        return max(self.written, self.changed)


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    times = found.st_mtime_ns, found.st_ctime_ns
    return _Stamp(os.path.abspath(path), found.st_dev, found.st_ino, found.st_size, *times)


def _known(path: Path) -> str:
    try:
        text = path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
    return text if len(text) == 64 and all(sign in "0123456789abcdef" for sign in text) else ""


def _remember(path: Path, fingerprint: str) -> None:
    """An aid: where the disk refuses, the files are read again."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(f"{fingerprint}\n", "ascii")
        os.replace(temporary, path)
        known = sorted(path.parent.iterdir(), key=lambda one: one.stat().st_mtime)
        for old in known[:-MOST]:
            old.unlink(missing_ok=True)
    except OSError:
        return
