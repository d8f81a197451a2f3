"""Where arrays lie: in this process's memory, or in memory that its children see as well.

Shared memory has no name: a file that exists in memory alone, which children open through /proc while this process
holds it.  Nothing is left of it however the processes end.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]
GROUP = Path("/sys/fs/cgroup")
KERNEL = Path("/proc/meminfo")


class Memory(Protocol):
    """Gives out arrays; a context."""

    def empty(self, count: int, kind: str) -> Numbers: ...
    def __enter__(self) -> Memory: ...
    def __exit__(self, *_: object) -> None: ...


class Own:
    """Of this process."""

    def __enter__(self) -> Own:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def empty(self, count: int, kind: str) -> Numbers:
        return np.empty(count, kind)


class Shared:
    """Of this process and its children; a context, whose arrays are not used after it."""

    def __init__(self) -> None:
        self._files: dict[int, tuple[int, Numbers]] = {}

    def __enter__(self) -> Shared:
        return self

    def __exit__(self, *_: object) -> None:
        for file in [one[0] for one in self._files.values()]:
            os.close(file)
        self._files.clear()

    def empty(self, count: int, kind: str) -> Numbers:
        """Zeros."""
        file = os.memfd_create("hathi", os.MFD_CLOEXEC)
        length = max(1, count * np.dtype(kind).itemsize)
        os.ftruncate(file, length)
        found: Numbers = np.frombuffer(mmap.mmap(file, length), kind)[:count]
        self._files[_place(found)] = file, found
        return found

    def where(self, array: Numbers) -> list[Any]:
        """What a child opens it by, for `opened`.  array: one that this memory gave out, whole."""
        return [f"/proc/{os.getpid()}/fd/{self._files[_place(array)][0]}", array.dtype.str, len(array)]


def opened(where: list[Any]) -> Numbers:
    """An array of the parent's, in a child."""
    path, kind, count = where
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        found: Numbers = np.frombuffer(mmap.mmap(file, 0), kind)[:count]
    finally:
        os.close(file)
    return found


def free() -> int:
    """Bytes that this process may still take: of the machine's, and of its control group's limit."""
    lines = dict(line.split(":", 1) for line in KERNEL.read_text().splitlines())
    found = int(lines["MemAvailable"].split()[0]) * 1024
    try:
        limit = int((GROUP / "memory.max").read_text())  # "max" is no number: there is no limit
        used = int((GROUP / "memory.current").read_text())
        parts = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return found
    cached = int(parts.get("active_file", 0)) + int(parts.get("inactive_file", 0))  # what files have is given back
    return min(found, max(0, limit - used + cached))


def _place(array: Numbers) -> int:
    return int(array.__array_interface__["data"][0])
