"""Whether the service's database and its bucket fit: each object that a row names is there, with its size."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.amounts import counted
from pipeline.service import blobs
from pipeline.service.database.opening import open_database
from pipeline.service.keys import TOP, UNNAMED
from pipeline.service.naming import Named, named
from pipeline.service.words import WORKER
from pipeline.stores.store import Store

SHOWN = 20


@dataclass(frozen=True)
class Checked:
    """objects: that rows name; missing: of those, not there, torn or changed.  work: how much is in each state."""

    objects: int
    missing: tuple[str, ...]
    unnamed: int
    work: dict[str, int]
    workers: int

    def as_json(self) -> dict[str, Any]:
        """The same as values of JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person."""
        states = ", ".join(f"{number} {state}" for state, number in sorted(self.work.items())) or "none"
        found = [
            f"work: {states}",
            f"workers: {self.workers}",
            f"{counted(self.objects, 'object')} that rows name; {counted(len(self.missing), 'object')} missing or torn",
            f"{counted(self.unnamed, 'object')} that no row names: attempts that were fenced, and what was deleted",
        ]
        return found + [f"missing: {key}" for key in self.missing[:SHOWN]]


async def check(setting: str, store: Store, *, hashes: bool = False) -> Checked:
    """setting: the database; hashes: each object is read, and its SHA-256 compared with what its row says.

    Raises PipelineError where either cannot be read.
    """
    database = await open_database(setting)
    try:
        async with database.reading(WORKER) as statements:
            work = await statements.rows("select state, count(*) as n from work group by state")
            workers = await statements.row(
                "select count(*) as n from workers where state = 'active' and beat_at > instant() - 60"
            )
            objects = await named(statements)
    finally:
        await database.close()
    there = await asyncio.to_thread(lambda: {entry.key: entry.size for entry in store.list(TOP)})
    missing = [key for key, one in objects.items() if there.get(key) != one.size]
    if hashes:
        missing += await asyncio.to_thread(_others, store, [one for key, one in objects.items() if key in there])
    counts = {row["state"]: int(row["n"]) for row in work}
    unnamed = len([key for key in there.keys() - objects.keys() if not key.startswith(UNNAMED)])
    alive = int(workers["n"]) if workers else 0
    return Checked(len(objects), tuple(sorted(set(missing))), unnamed, counts, alive)


def _others(store: Store, objects: Iterable[Named]) -> list[str]:
    """The keys of those whose content is not what their row says.  Raises PipelineError."""
    return [one.key for one in objects if one.sha256 and blobs.digest_of(store, one.key) != one.sha256]
