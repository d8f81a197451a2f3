"""No question of a busy service reads all work that was ever done: the database's own plans say so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.service.database.sqlite import _Connection
from pipeline.service.database.statements import Row
from tests.servers.databases import KINDS, Site, needs_the_extra, sites_of

needs_the_extra()

from pipeline.service.database.postgres import _Transaction  # noqa: E402
from tests.benchmarks import service_queue  # noqa: E402
from tests.servers.service import Person, Stand, standing  # noqa: E402

OVER, TENANTS = 60_000, 4
WHOLE = {
    "postgres": re.compile(r"Seq Scan on work( |$)|shared hit=(1[5-9]\d|[2-9]\d\d|\d{4,})"),
    "sqlite": re.compile(r"SCAN (main\.)?bare_work$"),
}
"""How a plan says that it reads a whole table, or 150 pages of it or of an index."""
Plans = dict[str, list[str]]
"""Each statement's, by its text."""


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    yield from sites_of(request, tmp_path)


async def of_postgres(held: Any, sql: str, values: tuple[object, ...]) -> list[str]:
    how = "(analyze, buffers, timing off)" * sql.lstrip().startswith("select")  # it does it: no change is made twice
    plan = [row[0] for row in await held._connection.fetch(f"explain {how} {sql}", *values)]
    return plan[: plan.index("Planning:")] if "Planning:" in plan else plan  # catalogues are read for plans


async def of_sqlite(held: Any, sql: str, values: tuple[object, ...]) -> list[str]:
    given = {str(n): one for n, one in enumerate(values, 1)}
    return [row["detail"] for row in held._db.execute(f"explain query plan {sql}", given)]


def planned(kind: str, patch: pytest.MonkeyPatch) -> Plans:
    """The plans of all that is asked from now on."""
    made: type[Any] = _Transaction if kind == "postgres" else _Connection
    plan, plans = of_postgres if kind == "postgres" else of_sqlite, Plans()

    for name in ("row", "rows"):
        real = getattr(made, name)

        async def asked(self: Any, sql: str, *values: object, real: Any = real) -> Row | list[Row] | None:
            if sql not in plans:
                plans[sql] = []
                plans[sql] = await plan(self, sql, values)
            found: Row | list[Row] | None = await real(self, sql, *values)
            return found

        patch.setattr(made, name, asked)
    return plans


def busy(stand: Stand, ann: Person) -> None:
    """What people, open pages and workers ask all the time."""
    job = ann.job()
    for path in ("me", f"training-jobs/{job}", "training-jobs", "training-jobs?state=queued"):
        ann.got("GET", f"/v1/{path}")
    stand.person("ayes", "ada", platform=True).got("GET", "/v1/installation")
    events = ann.ask("GET", "/v1/events")
    next(events.iter_content(1))
    events.close()
    stand.trained(ann, job, over=True)
    ann.got("POST", f"/v1/training-jobs/{ann.job()}/cancel")


def test_nothing_that_is_asked_all_the_time_reads_what_is_over(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standing(site, tmp_path) as stand:
        tenants = site.run(service_queue.made(stand, TENANTS, TENANTS))
        site.run(service_queue.fill(site, tenants, OVER))
        site.run(site.bare("analyze"))
        plans = planned(site.kind, monkeypatch)
        busy(stand, Person(stand.url, tenants[0].token, tenants[0].id))
    assert sum("work" in sql for sql in plans) > 25
    whole = {sql: plan for sql, plan in plans.items() if any(WHOLE[site.kind].search(line) for line in plan)}
    assert whole == {}
