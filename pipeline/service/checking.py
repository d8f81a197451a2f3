"""Whether the service's database and its bucket fit: each object that a row names is there, with its size."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.amounts import counted
from pipeline.service.database.opening import open_database
from pipeline.service.keys import TOP
from pipeline.service.words import WORKER
from pipeline.stores.store import Store

SHOWN = 20


@dataclass(frozen=True)
class Checked:
    """objects: that rows name; missing: of those, not there or of another size.  work: how much is in each state."""

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


async def check(setting: str, store: Store) -> Checked:
    """setting: the database.  Raises PipelineError where either cannot be read."""
    database = await open_database(setting)
    try:
        async with database.reading(WORKER) as statements:
            work = await statements.rows("select state, count(*) as n from work group by state")
            workers = await statements.row(
                "select count(*) as n from workers where state = 'active' and beat_at > instant() - 60"
            )
            rows = await statements.rows("select chunks as files from datafiles")
            rows += await statements.rows("select files from snapshots")
            chunks = await statements.rows("select key, size from chunks")
    finally:
        await database.close()
    named = {one["key"]: one["size"] for row in rows for one in json.loads(row["files"])}
    named |= {row["key"]: row["size"] for row in chunks}
    there = await asyncio.to_thread(lambda: {entry.key: entry.size for entry in store.list(TOP)})
    missing = tuple(sorted(key for key, size in named.items() if there.get(key) != size))
    counts = {row["state"]: int(row["n"]) for row in work}
    return Checked(len(named), missing, len(there.keys() - named.keys()), counts, int(workers["n"]) if workers else 0)
