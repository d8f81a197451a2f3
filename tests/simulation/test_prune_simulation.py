"""`hathi service prune` against uploads and attempts, under a seeded scheduler: what a row names is never deleted.

In CI a bounded number of schedules; the long form is `python -m tests.simulation.test_prune_simulation SCHEDULES`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.servers.databases import needs_the_extra

needs_the_extra()

from pipeline.service import naming, pruning  # noqa: E402
from pipeline.service.database.statements import Row, Statements  # noqa: E402
from pipeline.service.naming import NAMING, ONLY, Named, objects_of  # noqa: E402
from pipeline.service.pruning import Facts  # noqa: E402
from tests.simulation.prune_universe import PruneUniverse  # noqa: E402
from tests.simulation.queue_database import Held  # noqa: E402
from tests.simulation.schedules import is_found, run_some  # noqa: E402

SCHEDULES, STEPS, SCHEDULES_FOR_A_MISTAKE = 8, 2500, 20
Plant = Callable[[pytest.MonkeyPatch], None]


def _judged(patch: pytest.MonkeyPatch, change: Callable[[Facts], Facts], days: float = 1.0) -> None:
    """It judges other facts than it has seen, or so many times the days."""
    real = pruning.judge
    patch.setattr(pruning, "judge", lambda facts, given: real(change(facts), given * days))


def attempts_that_run_are_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    _judged(patch, lambda facts: replace(facts, running=frozenset()))


def an_object_goes_as_soon_as_it_is_unnamed(patch: pytest.MonkeyPatch) -> None:
    _judged(patch, lambda facts: facts, days=0.0)


def whose_an_object_is_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    _judged(
        patch, lambda facts: replace(facts, tenants=frozenset(entry.key.split("/")[1] for entry in facts.entries))
    )  # fmt: skip


def _forgotten(table: str) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        real = naming.named

        async def named(statements: Statements) -> dict[str, Named]:
            found = await real(statements)
            for row in await statements.rows(f"select {', '.join(NAMING[table])} from {table}{ONLY.get(table, '')}"):
                for one in objects_of(table, row):
                    found.pop(one.key, None)
            return found

        patch.setattr(pruning, "named", named)

    plant.__name__ = f"rows_of_{table}_name_nothing"
    return plant


def an_upload_is_cut_though_it_went_on(patch: pytest.MonkeyPatch) -> None:
    real = Held.rows

    async def rows(self: Held, sql: str, *values: object) -> list[Row]:
        if "delete from datafiles" in sql and "epoch = $3" in sql:
            sql = sql.replace("and epoch = $3 and received = $4", "and $3 = $3 and $4 = $4")
            sql = " ".join(sql.split()).replace("and received < size", "")
        return await real(self, sql, *values)

    patch.setattr(Held, "rows", rows)


def notes_are_not_kept(patch: pytest.MonkeyPatch) -> None:
    _judged(patch, lambda facts: replace(facts, since={}))


MISTAKES: tuple[Plant, ...] = (
    attempts_that_run_are_not_looked_at, an_object_goes_as_soon_as_it_is_unnamed, whose_an_object_is_is_not_looked_at,
    an_upload_is_cut_though_it_went_on, notes_are_not_kept,
    *(_forgotten(table) for table in ("datafiles", "chunks", "snapshots", "work")),
)  # fmt: skip


def test_whatever_happens_what_a_row_names_is_there_and_nothing_else_stays_for_good() -> None:
    broken, seen = run_some(PruneUniverse, range(SCHEDULES), STEPS)
    assert broken == []
    assert {what: seen[what] for what in ("removed", "note removed", "cut") if seen[what] < 3} == {}, "each is taken"


@pytest.mark.parametrize("plant", MISTAKES, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_of_a_prune_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert is_found(PruneUniverse, range(SCHEDULES_FOR_A_MISTAKE), STEPS), (
        f"{plant.__name__} was not found in {SCHEDULES_FOR_A_MISTAKE} schedules"
    )


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    found, what = run_some(PruneUniverse, range(1_000_000, 1_000_000 + number), 5000)
    print(f"{number} schedules: {dict(what)}", *found, sep="\n")
    sys.exit(1 if found else 0)
