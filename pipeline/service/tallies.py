"""Figures of the whole installation that only grow, in its database: any number of workers add, any server shows."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.service.database.statements import Database, Taken
from pipeline.service.eta import Missed
from pipeline.service.words import WORKER, Slot

CLAIMS = "claims"
"""Counted by the database itself, with each claim."""
ETAS, TOLD, CAME, ERROR = "etas", "eta_told", "eta_came", "eta_error"
"""Of how many trainings an end was told, and the seconds of all of them (`eta.Missed`)."""


def of(missed: Missed) -> dict[str, float]:
    """What one that has succeeded adds."""
    return {ETAS: 1, TOLD: missed.told, CAME: missed.came, ERROR: missed.error}


async def add(database: Database, slot: Slot, more: Mapping[str, float]) -> None:
    """more: by name.  All of them or none.  Raises PipelineError."""
    while True:
        try:
            async with database.transaction(WORKER) as statements:
                for name, value in sorted(more.items()):
                    sql = "update tallies set value = value + $3 where slot = $1 and name = $2 returning name"
                    if await statements.row(sql, slot, name, float(value)) is None:
                        sql = "insert into tallies (slot, name, value) values ($1, $2, $3) returning name"
                        await statements.row(sql, slot, name, float(value))
            return
        except Taken:  # another worker was the first to add to one of them: from now on it is there
            continue


async def read(database: Database) -> dict[tuple[Slot, str], float]:
    """As they are now.  Raises PipelineError."""
    async with database.reading(WORKER) as statements:
        rows = await statements.rows("select slot, name, value from tallies")
    return {(Slot(row["slot"]), row["name"]): float(row["value"]) for row in rows}
