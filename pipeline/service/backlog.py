"""What waits, what runs and who works, of all tenants together, as the database has it: what `scaling.py` judges."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from pipeline.clock import Clock
from pipeline.service.database.statements import Database, Row, Statements
from pipeline.service.scaling import Load, Queue, seconds_of
from pipeline.service.words import WORKER, Slot

HEARD_SECONDS = 15.0
"""A worker of whom nothing was heard for so long is not counted."""
REMEMBERED = 20
"""So many of a tenant's last ones say how long its work takes."""
_KEPT_SECONDS = 60.0


@dataclass
class Took:
    """How long a tenant's work of a sort took, looked up once a minute."""

    clock: Clock = field(default_factory=Clock)
    _known: dict[tuple[str, str], tuple[float, list[float]]] = field(default_factory=dict)

    async def of(self, statements: Statements, tenant: str, kind: str) -> list[float]:
        """Seconds of its last ones, over all attempts."""
        now, key = self.clock.monotonic(), (tenant, kind)
        if key not in self._known or now - self._known[key][0] > _KEPT_SECONDS:
            rows = await statements.rows(
                f"""select spent from work where tenant_id = $1 and kind = $2 and state = 'succeeded'
                    order by id desc limit {REMEMBERED}""",
                tenant, kind,
            )  # fmt: skip
            self._known = {one: told for one, told in self._known.items() if now - told[0] <= _KEPT_SECONDS}
            self._known[key] = now, [float(row["spent"]) for row in rows]
        return self._known[key][1]


async def read(database: Database, took: Took) -> dict[Slot, Load]:
    """Of each kind, at one moment."""
    async with database.reading(WORKER) as statements:
        queued = await statements.rows(
            """select slot, tenant_id, kind, progress, count(*) as n, min(created_at) as oldest from work
               where state = 'queued' group by slot, tenant_id, kind, progress"""
        )
        runs = await statements.rows(
            "select slot, tenant_id, count(*) as n from work where state = 'running' group by slot, tenant_id"
        )
        workers = await statements.rows(
            f"""select slot, host, count(*) as n from workers
                where state = 'active' and beat_at > instant() - {HEARD_SECONDS} group by slot, host"""
        )
        tenants = await statements.rows(
            """select id, running, instant() as now from tenants
               where id in (select tenant_id from work where state = 'queued')"""
        )
        may = {row["id"]: int(row["running"]) for row in tenants}
        seconds: dict[tuple[str, str], float] = defaultdict(float)
        for row in queued:
            left = json.loads(row["progress"]).get("seconds_left")
            known = [] if left is not None else await took.of(statements, row["tenant_id"], row["kind"])
            seconds[row["slot"], row["tenant_id"]] += row["n"] * seconds_of(left, known)
    running = {(row["slot"], row["tenant_id"]): int(row["n"]) for row in runs}
    found = {}
    for slot in Slot:
        here = [row for row in queued if row["slot"] == slot]
        queues = tuple(
            Queue(_sum(here, tenant), seconds[slot, tenant], may.get(tenant, 0) - running.get((slot, tenant), 0))
            for tenant in sorted({row["tenant_id"] for row in here})
        )
        now = max((row["now"] for row in tenants), default=0.0)
        found[slot] = Load(
            queues, sum(n for (of, _), n in running.items() if of == slot),
            {row["host"]: int(row["n"]) for row in workers if row["slot"] == slot},
            max((max(0.0, now - row["oldest"]) for row in here), default=0.0),
        )  # fmt: skip
    return found


def _sum(rows: list[Row], tenant: str) -> int:
    counts: list[Any] = [row["n"] for row in rows if row["tenant_id"] == tenant]
    return sum(counts)
