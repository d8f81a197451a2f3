"""How the service is: whether each object that a row names is in the bucket, and what stands in the way of its work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.amounts import counted
from pipeline.service import blobs, troubles
from pipeline.service.database.opening import open_database
from pipeline.service.keys import ESTOP, TOP, UNNAMED
from pipeline.service.naming import Named, named
from pipeline.service.troubles import Trouble
from pipeline.service.words import WORKER
from pipeline.stores.store import Store

SHOWN = 20
_HALTED = Trouble(
    "estop", "ESTOP is engaged in the bucket: no server and no worker of the service runs",
    f"`hathi start --remote` deletes {ESTOP}; then start servers and workers",
)  # fmt: skip


@dataclass(frozen=True)
class Checked:
    """objects: that rows name; missing: of those, not there, torn or changed.  work: how much is in each state.

    troubles: what is wrong, with its remedy.
    """

    objects: int
    missing: tuple[str, ...]
    unnamed: int
    work: dict[str, int]
    workers: int
    troubles: tuple[Trouble, ...] = ()

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
        found += [f"missing: {key}" for key in self.missing[:SHOWN]]
        return [*found, *(line for one in self.troubles for line in one.lines())]


async def check(setting: str, store: Store, *, hashes: bool = False, wait_seconds: float = 60.0) -> Checked:
    """setting: the database; hashes: each object is read, and its SHA-256 compared with what its row says.

    wait_seconds: queued work should wait no longer.

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
        seen = await troubles.look(database)
    finally:
        await database.close()
    there = await asyncio.to_thread(lambda: {entry.key: entry.size for entry in store.list(TOP)})
    missing = [key for key, one in objects.items() if there.get(key) != one.size]
    if hashes:
        missing += await asyncio.to_thread(_others, store, [one for key, one in objects.items() if key in there])
    counts = {row["state"]: int(row["n"]) for row in work}
    halted = (_HALTED,) if there.pop(ESTOP, None) is not None else ()
    unnamed = len([key for key in there.keys() - objects.keys() if not key.startswith(UNNAMED)])
    alive = int(workers["n"]) if workers else 0
    lost = tuple(sorted(set(missing)))
    found = (*halted, *troubles.judge(seen, lost, wait_seconds))
    return Checked(len(objects), lost, unnamed, counts, alive, found)


def _others(store: Store, objects: Iterable[Named]) -> list[str]:
    """The keys of those whose content is not what their row says.  Raises PipelineError."""
    return [one.key for one in objects if one.sha256 and blobs.digest_of(store, one.key) != one.sha256]
