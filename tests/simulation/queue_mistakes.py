"""Mistakes with the queue that look harmless, planted one at a time: the simulation has to find each of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.service import blobs, dependencies, queue
from pipeline.service.database.statements import Database, Row, Statements
from pipeline.service.keys import TenantKeys
from pipeline.service.queue import Submission
from pipeline.service.words import WORKER, Beaten, Claimed, Ending, Realm, State
from pipeline.service.work import attempt, shipping
from pipeline.service.work.lease import Lease
from pipeline.stores.store import Store
from tests.simulation.queue_database import Held

Plant = Callable[[pytest.MonkeyPatch], None]


def _written(patch: pytest.MonkeyPatch, of: str, *changes: tuple[str, str]) -> None:
    """Statements that have the words `of` are written otherwise."""
    real = Held.rows

    async def rows(self: Held, sql: str, *values: object) -> list[Row]:
        sql = " ".join(sql.split())
        if of in sql:
            for old, new in changes:
                sql = sql.replace(old, new)
        return await real(self, sql, *values)

    patch.setattr(Held, "rows", rows)


def a_beat_without_its_epoch(patch: pytest.MonkeyPatch) -> None:
    """Work is named by its id; who else would beat for it?"""
    _written(patch, "progress = $5", ("and epoch = $3 ", ""))


def an_end_whatever_the_state(patch: pytest.MonkeyPatch) -> None:
    """The epoch says whose work it is."""
    _written(patch, "returning state", (" and state = 'running' returning", " returning"))


def a_lease_by_the_workers_own_clock(patch: pytest.MonkeyPatch) -> None:
    """All hosts have the time from one server."""
    clocks: dict[Claimed, Lease] = {}
    real = Lease.__init__

    def init(self: Lease, *words: Any, **more: Any) -> None:
        real(self, *words, **more)
        clocks[self.held.tenant, self.held.id, self.held.epoch] = self

    async def beat(
        database: Database, held: Claimed, progress: Mapping[str, Any], lease: float = queue.LEASE_SECONDS
    ) -> Beaten | None:
        until = clocks[held.tenant, held.id, held.epoch].clock.now() + lease
        async with database.transaction(WORKER) as statements:
            row = await statements.row(
                f"""update work set lease_until = $4, progress = $5, version = version + 1 where {queue._HELD}
                    returning cancel_requested_at""",
                held.tenant, held.id, held.epoch, until, json.dumps(progress),
            )  # fmt: skip
        return Beaten(row["cancel_requested_at"] is not None) if row is not None else None

    patch.setattr(Lease, "__init__", init)
    patch.setattr(queue, "beat", beat)


def asking_whether_one_is_retired_before_the_claim(patch: pytest.MonkeyPatch) -> None:
    """A worker that is active now is so a moment later."""
    real = queue.claim

    class Known:
        """A database whose claim knows the worker already."""

        def __init__(self, database: Database, slot: str) -> None:
            self._database, self._slot = database, slot

        @contextlib.asynccontextmanager
        async def transaction(self, realm: Realm, *, serial: bool = False) -> AsyncIterator[Any]:
            async with self._database.transaction(realm, serial=serial) as statements:
                yield _Telling(statements, self._slot)

    async def claim(database: Database, worker: str, lease: float = queue.LEASE_SECONDS) -> Claimed | None:
        async with database.reading(WORKER) as statements:
            row = await statements.row("select slot from workers where id = $1 and state = 'active'", worker)
        if row is None:
            return None
        return await real(Known(database, row["slot"]), worker, lease)  # type: ignore[arg-type]

    patch.setattr(queue, "claim", claim)


class _Telling:
    def __init__(self, statements: Statements, slot: str) -> None:
        self._statements, self._slot = statements, slot
        self.rows = statements.rows

    async def row(self, sql: str, *values: object) -> Row | None:
        if "update workers set beat_at" in sql:
            return {"slot": self._slot}
        return await self._statements.row(sql, *values)


def an_end_that_overwrites_a_cancel(patch: pytest.MonkeyPatch) -> None:
    """It is done, so it is a success."""
    guarded = "case when cancel_requested_at is null then 'succeeded' else 'cancelled' end"
    _written(patch, "result = $6", (guarded, "'succeeded'"))


def objects_without_their_attempt(patch: pytest.MonkeyPatch) -> None:
    """One folder a job: who goes on, goes on there."""
    patch.setattr(TenantKeys, "attempt", lambda self, job, epoch: f"{self._of('j', job)}a000001/")


def a_release_that_begins_to_count_anew(patch: pytest.MonkeyPatch) -> None:
    """What was parted with in good order is as if it had never begun."""
    _written(
        patch, "set state = case when cancel_requested_at is null then 'queued'", ("set state", "set epoch = 0, state")
    )


def a_release_without_its_epoch(patch: pytest.MonkeyPatch) -> None:
    _written(patch, "set state = case when cancel_requested_at is null then 'queued'", ("and epoch = $3 ", ""))


def priority_over_tenants(patch: pytest.MonkeyPatch) -> None:
    """Urgent is urgent."""

    async def turn(statements: Statements, slot: str) -> str | None:
        row = await statements.row(
            """select tenant_id from work where state = 'queued' and slot = $1
               order by priority desc, created_at limit 1""",
            slot,
        )
        return str(row["tenant_id"]) if row is not None else None

    patch.setattr(queue, "_turn", turn)


def turns_that_nobody_notes(patch: pytest.MonkeyPatch) -> None:
    """Whoever runs least is next; that is fair enough."""

    async def served(statements: Statements, tenant: str, slot: str) -> None:
        return

    patch.setattr(queue, "_served", served)


def an_ended_lease_that_waits_for_a_reaper(patch: pytest.MonkeyPatch) -> None:
    """Something else will put it back into the queue."""

    async def lost(statements: Statements, slot: str) -> Row | None:
        return None

    patch.setattr(queue, "_lost", lost)


def taking_over_before_the_lease_has_ended(patch: pytest.MonkeyPatch) -> None:
    """Two beats were missed."""
    _written(patch, "order by lease_until", ("lease_until < instant()", "lease_until < instant() + 6"))


def retiring_whoever_is_asked_to(patch: pytest.MonkeyPatch) -> None:
    """It had nothing to do a moment ago."""
    _written(patch, "update workers set state = 'retired'", ("and not exists", "and 1 = 1 or not exists"))


def records_of_whoever_brings_them(patch: pytest.MonkeyPatch) -> None:
    """A chunk is a chunk."""

    async def mine(statements: Statements, held: Claimed, changes: str) -> Row:
        return {}

    patch.setattr(queue, "_mine", mine)


def a_cancel_that_ends_held_work_at_once(patch: pytest.MonkeyPatch) -> None:
    """A person wants it to end, so it has ended."""
    _written(patch, "set cancel_requested_at = coalesce", ("(state <> 'running' or lease_until < instant())", "true"))


def the_row_before_its_object(patch: pytest.MonkeyPatch) -> None:
    """The object follows as soon as the row stands."""
    waiting: list[tuple[Store, str, bytes | Path]] = []

    async def put(store: Store, key: str, content: bytes | Path) -> None:
        waiting.append((store, key, content if isinstance(content, bytes) else content.read_bytes()))

    def after(real: Callable[..., Any]) -> Callable[..., Any]:
        async def named(*words: Any) -> bool:
            done = await real(*words)
            while waiting:
                store, key, content = waiting.pop()
                store.put(key, content)
            return bool(done)

        return named

    patch.setattr(blobs, "put", put)
    patch.setattr(queue, "ship", after(queue.ship))
    patch.setattr(queue, "keep", after(queue.keep))


def a_result_without_what_was_restored(patch: pytest.MonkeyPatch) -> None:
    """Who was killed between the last snapshot and the end has made nothing in this attempt."""
    real = shipping.restore

    async def restore(*words: Any) -> tuple[int, list[dict[str, Any]]]:
        return (await real(*words))[0], []

    patch.setattr(attempt, "restore", restore)


def a_look_at_what_it_needs_before_it_is_asked_for(patch: pytest.MonkeyPatch) -> None:
    """The client has just seen that it runs; one look is enough."""

    async def held(statements: Statements, tenant: str, datafiles: Iterable[str], work: Sequence[str]) -> list[str]:
        return list(work)

    async def judge(statements: Statements, tenant: str, work: str) -> bool:
        return False

    submit = queue.submit

    async def submitted(statements: Statements, realm: Realm, work: Submission) -> None:
        with patch.context() as within:
            within.setattr(dependencies, "judge", judge)
            await submit(statements, realm, work)

    patch.setattr(dependencies, "held", held)
    patch.setattr(queue, "submit", submitted)


def an_end_that_tells_nobody(patch: pytest.MonkeyPatch) -> None:
    """Whoever waits looks again sometime."""

    async def ended(statements: Statements, tenant: str, name: str) -> None:
        return

    patch.setattr(dependencies, "ended", ended)


def ready_when_the_first_of_its_needs_is(patch: pytest.MonkeyPatch) -> None:
    """What it waited for is there."""
    patch.setattr(dependencies, "_NOT_DONE", "1 = 2")


def waiting_on_for_what_has_failed(patch: pytest.MonkeyPatch) -> None:
    """Only what has succeeded is told to those that wait."""
    _written(patch, "and needed.state <> 'succeeded' order by", ("needed.state in (", "needed.state in ('none') and ("))


def an_end_told_after_its_transaction(patch: pytest.MonkeyPatch) -> None:
    """The result comes first; then the others may know."""
    real = queue.finish

    async def finish(database: Database, held: Claimed, ending: Ending) -> State | None:
        async def later(statements: Statements, tenant: str, name: str) -> None:
            return

        with patch.context() as within:
            within.setattr(dependencies, "ended", later)
            state = await real(database, held, ending)
        if state is not None:
            async with database.transaction(WORKER) as statements:
                await dependencies.ended(statements, held.tenant, held.id)
        return state

    patch.setattr(queue, "finish", finish)


MISTAKES: list[Plant] = [
    a_look_at_what_it_needs_before_it_is_asked_for,
    an_end_that_tells_nobody,
    ready_when_the_first_of_its_needs_is,
    waiting_on_for_what_has_failed,
    an_end_told_after_its_transaction,
    a_beat_without_its_epoch,
    an_end_whatever_the_state,
    a_lease_by_the_workers_own_clock,
    asking_whether_one_is_retired_before_the_claim,
    an_end_that_overwrites_a_cancel,
    objects_without_their_attempt,
    a_release_that_begins_to_count_anew,
    a_release_without_its_epoch,
    priority_over_tenants,
    turns_that_nobody_notes,
    an_ended_lease_that_waits_for_a_reaper,
    taking_over_before_the_lease_has_ended,
    retiring_whoever_is_asked_to,
    records_of_whoever_brings_them,
    a_cancel_that_ends_held_work_at_once,
    the_row_before_its_object,
    a_result_without_what_was_restored,
]
