"""Workers of this host that died: each holds a lock while it lives, so that whoever comes next knows of it at once.

Without it what a dead worker held waits for the end of its lease.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.process.host import host_name
from pipeline.process.lock import holder, locked
from pipeline.service import queue
from pipeline.service.database.statements import Database
from pipeline.service.work.worker import names_of


@contextlib.contextmanager
def living(state: Path, worker: str) -> Iterator[None]:
    """While the block lasts the worker is not missed.  state: the state folder.  Raises Held where it lives already."""
    folder = _folder(state)
    with locked(folder, worker):
        yield
    _lock(folder, worker).unlink(missing_ok=True)


async def miss(database: Database, state: Path) -> list[str]:
    """The dead workers of this host: what they held is claimed by the next that asks."""
    folder = _folder(state)
    dead = sorted(path.stem for path in folder.glob("*.lock") if holder(folder, path.stem) is None)
    for worker in dead:
        await gone(database, state, worker)
    return dead


async def gone(database: Database, state: Path, worker: str) -> int:
    """A worker of this host that is known to be dead: how much work it held."""
    held = sum([await queue.orphan(database, name) for name in names_of(worker).values()])
    _lock(_folder(state), worker).unlink(missing_ok=True)
    return held


def _folder(state: Path) -> Path:
    """Of this host: a folder may be one that hosts share."""
    return state / "service" / "workers" / host_name()


def _lock(folder: Path, worker: str) -> Path:
    return folder / f"{worker}.lock"
