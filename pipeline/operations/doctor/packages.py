"""Python, and whether what is installed is what the lock file says."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

from pipeline.process.installed import RENEW
from pipeline.stores.store import Examined

LEAST = (3, 11)
_PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)\s*(;)?")
NAMED = 5


def python() -> Iterator[Examined]:
    """The interpreter."""
    hint = "" if sys.version_info >= LEAST else f"install Python 3.11 or newer, then {RENEW}"
    yield Examined("version", not hint, f"Python {python_version()} at {sys.executable}", hint)


def packages(locks: Path) -> Iterator[Examined]:
    """Every package of runtime.txt, with the version that it says; others are not looked at.

    locks: the folder of the lock files.  A package with a condition may be absent: it is for other systems.
    """
    lock = locks / "runtime.txt"
    try:
        lines = lock.read_text().splitlines()
    except OSError:
        yield Examined("lock file", True, f"{lock} does not exist: installed packages are not compared with it")
        return
    pinned: dict[str, list[re.Match[str]]] = {}
    for line in lines:
        if found := _PINNED.match(line):
            pinned.setdefault(found[1], []).append(found)
    differ = [text for name, pins in pinned.items() if (text := _difference(name, pins))]
    if differ:
        more = f" and {len(differ) - NAMED} more" if len(differ) > NAMED else ""
        said = f"{len(differ)} of {len(pinned)} packages differ: {', '.join(differ[:NAMED])}{more}"
        yield Examined("lock file", False, said, f"run {RENEW}: it installs the versions of the lock file")
    else:
        yield Examined("lock file", True, f"{len(pinned)} packages have the versions of {lock.name}")


def _difference(name: str, pins: list[re.Match[str]]) -> str:
    """A package may be pinned more than once, for different interpreters or systems."""
    wanted = [pin[2] for pin in pins]
    try:
        have = version(name)
    except PackageNotFoundError:
        return "" if all(pin[3] for pin in pins) else f"{name} is missing"
    return "" if have in wanted else f"{name} is {have}, not {' or '.join(wanted)}"
