"""The queue against a model of it: hypothesis chooses what happens in which order, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pipeline.clock import Clock
from pipeline.service import fairness, queue, states
from pipeline.service.database.sqlite import SqliteDatabase
from pipeline.service.database.statements import Database
from pipeline.service.fairness import Queued, Standing
from pipeline.service.ids import Kind, new_id
from pipeline.service.problems import Refused
from pipeline.service.queue import LEASE_SECONDS, LOST, STRIKES, Snapshot, Submission
from pipeline.service.words import PLATFORM, WORKER, Actor, Beaten, Claimed, Ending, Role, Slot, State, scope
from tests.servers.databases import KINDS, Site, empty, sites_of

pytest.importorskip("fastapi", reason="LEFT OUT: the service: scripts/service.sh installs what it needs")

from fastapi import Response

from pipeline.service.http import training_jobs
from pipeline.service.http.training_jobs import JobChanges

T = TypeVar("T")
EXAMPLES, STEPS = 14, 40
SHARES = {"a": (1, 2), "b": (2, 3), "c": (1, 9)}
"""Weight and most running work of each tenant."""
BEGIN = 1.7e9
SOLVER = new_id(Kind.SOLVER, BEGIN)
STANDS_STILL = """create or replace function instant() returns double precision language sql volatile as
    'select ahead from test_clock'"""
pick = st.integers(0, 10_000)
slots = st.sampled_from(list(Slot))


@dataclass
class Work:
    """What the model knows of work."""

    id: str
    tenant: str
    slot: Slot
    priority: int
    created: float
    state: State = State.QUEUED
    epoch: int = 0
    worker: str | None = None
    lease: float | None = None
    cancel: bool = False
    strikes: int = 0
    lost: int = 0
    needs: frozenset[str] = frozenset()

    def ends(self, state: State) -> State:
        self.state, self.worker, self.lease = state, None, None
        return state


class Model:
    """What the queue does, in words that are no SQL."""

    def __init__(self, tenants: dict[str, tuple[int, int]]) -> None:
        self.now, self.tenants = BEGIN, tenants
        self.work: dict[str, Work] = {}
        self.workers: dict[str, tuple[Slot, bool]] = {}
        self.served: dict[tuple[str, Slot], float] = {}

    def settle(self) -> None:
        """What waits is queued when all that it needs has succeeded, and fails when one of it never will."""
        waits = [one for one in self.work.values() if one.state is State.WAITING]
        for one in waits:
            needed = [self.work[name].state for name in one.needs]
            if {State.FAILED, State.CANCELLED} & set(needed):
                one.ends(State.FAILED)
                return self.settle()
            if set(needed) <= {State.SUCCEEDED}:
                one.state = State.QUEUED
        return None

    def running(self, slot: Slot) -> list[Work]:
        return [one for one in self.work.values() if one.state is State.RUNNING and one.slot is slot]

    def claim(self, worker: str) -> Work | None:
        slot, active = self.workers[worker]
        if not active:
            return None
        while lost := [one for one in self.running(slot) if (one.lease or 0.0) < self.now]:
            one = min(lost, key=lambda one: one.lease or 0.0)
            if one.cancel:
                one.ends(State.CANCELLED)
                continue
            one.lost += 1
            if one.lost < LOST:
                return self._taken(one, worker)
            one.ends(State.FAILED)
        waits = [Queued(one.tenant, one.id, one.priority, one.created) for one in self.work.values()
                 if one.state is State.QUEUED and one.slot is slot]  # fmt: skip
        stands = [Standing(tenant, sum(one.tenant == tenant for one in self.running(slot)), weight, most,
                           self.served.get((tenant, slot), 0.0))
                  for tenant, (weight, most) in self.tenants.items()]  # fmt: skip
        chosen = fairness.next_of(waits, stands)
        if chosen is None:
            return None
        self.served[chosen.tenant, slot] = self.now
        return self._taken(self.work[chosen.id], worker)

    def _taken(self, one: Work, worker: str) -> Work:
        one.state, one.worker, one.lease, one.epoch = State.RUNNING, worker, self.now + LEASE_SECONDS, one.epoch + 1
        return one

    def held(self, held: Claimed) -> Work | None:
        """None: it is somebody else's, or over, or gone."""
        one = self.work.get(held.id)
        return one if one is not None and one.state is State.RUNNING and one.epoch == held.epoch else None

    def cancel(self, name: str) -> State | None:
        one = self.work[name]
        if one.state in states.TERMINAL:
            return None
        one.cancel = True
        free = one.state is not State.RUNNING or (one.lease or 0.0) < self.now
        return one.ends(State.CANCELLED) if free else one.state

    def after(self, held: Claimed, state: State) -> State | None:
        one = self.held(held)
        return None if one is None else one.ends(State.CANCELLED if one.cancel else state)

    def strike(self, held: Claimed) -> State | None:
        one = self.held(held)
        if one is None:
            return None
        one.strikes += 1
        return self.after(held, State.QUEUED if one.strikes < STRIKES else State.FAILED)


class Machine(RuleBasedStateMachine):
    """One database and the model, side by side."""

    site: Site

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock: Any = None
        self.got: list[Claimed] = []
        """All that anybody ever claimed: whoever was frozen wakes by using an old one."""

    @initialize()
    def begin(self) -> None:
        empty(self.site)
        tenants = {new_id(Kind.TENANT, BEGIN): SHARES[name] for name in SHARES}
        self.model = Model(tenants)
        self.database = self._run(self._opened())
        self._run(self._filled())

    async def _opened(self) -> Database:
        if self.site.kind == "sqlite":
            return SqliteDatabase(self.site.path, Clock(lambda: self.model.now))
        import asyncpg

        from pipeline.service.database.postgres import PostgresDatabase

        self.clock = await asyncpg.connect(self.site.bare_url)
        return PostgresDatabase(self.site.url)

    async def _filled(self) -> None:
        async with self.database.transaction(PLATFORM) as statements:
            for tenant, (weight, most) in self.model.tenants.items():
                await statements.row(
                    """insert into tenants (id, name, weight, running, created_at) values ($1, $1, $2, $3, 0.0)
                       returning id""",
                    tenant, weight, most,
                )  # fmt: skip
        for tenant in self.model.tenants:
            async with self.database.transaction(scope(tenant)) as statements:
                await statements.row(
                    """insert into solvers (tenant_id, id, name, solver, net, created_at)
                       values ($1, $2, 's', '', '', 0.0) returning id""",
                    tenant, SOLVER,
                )  # fmt: skip

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self._run(self.database.close())
        if self.clock is not None:
            self._run(self.clock.close())
        self.loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """A moment later."""
        self.model.now += 0.001
        if self.clock is not None:
            self.loop.run_until_complete(self.clock.execute(f"update test_clock set ahead = {self.model.now!r}"))
        return self.loop.run_until_complete(work)

    def _work(self, n: int) -> Work | None:
        return list(self.model.work.values())[n % len(self.model.work)] if self.model.work else None

    def _worker(self, n: int) -> str | None:
        return list(self.model.workers)[n % len(self.model.workers)] if self.model.workers else None

    def _held(self, n: int) -> Claimed | None:
        return self.got[-1 - n % len(self.got)] if self.got else None

    @rule(n=pick, slot=slots, priority=st.integers(-1, 1), on=st.lists(pick, max_size=2))
    def submit(self, n: int, slot: Slot, priority: int, on: list[int]) -> None:
        """on: what it needs, which may be over already."""
        tenant, name = list(self.model.tenants)[n % len(SHARES)], new_id(Kind.TRAINING_JOB, BEGIN)
        mine = [one.id for one in self.model.work.values() if one.tenant == tenant]
        needs = frozenset(mine[one % len(mine)] for one in on) if mine else frozenset()

        async def submitted() -> None:
            async with self.database.transaction(scope(tenant)) as statements:
                body = {"name": "n", "inputs": {}}
                work = Submission(name, "train", slot, body, priority, 100.0, SOLVER, needs=sorted(needs))
                await queue.submit(statements, scope(tenant), work)

        self._run(submitted())
        self.model.work[name] = Work(name, tenant, slot, priority, self.model.now, State.WAITING, needs=needs)

    @rule(slot=slots)
    def enlist(self, slot: Slot) -> None:
        name = new_id(Kind.WORKER, BEGIN)
        self._run(queue.enlist(self.database, name, "here", slot))
        self.model.workers[name] = (slot, True)

    @rule(n=pick)
    def claim(self, n: int) -> None:
        name = self._worker(n)
        if name is None or any(one.worker == name for one in self.model.work.values()):
            return  # a worker has one at a time
        got = self._run(queue.claim(self.database, name))
        wanted = self.model.claim(name)
        assert (got and (got.id, got.epoch)) == (wanted and (wanted.id, wanted.epoch))
        if got is not None:
            self.got.append(got)

    @rule(n=pick)
    def beat(self, n: int) -> None:
        if (held := self._held(n)) is not None:
            told = self._run(queue.beat(self.database, held, {}))
            one = self.model.held(held)
            assert told == (Beaten(one.cancel) if one is not None else None)
            if one is not None:
                one.lease = self.model.now + LEASE_SECONDS

    @rule(n=pick, state=st.sampled_from([State.SUCCEEDED, State.FAILED]))
    def finish(self, n: int, state: State) -> None:
        if (held := self._held(n)) is not None:
            ended = self._run(queue.finish(self.database, held, Ending(state, result={"of": held.epoch})))
            assert ended == self.model.after(held, state)

    @rule(n=pick)
    def release(self, n: int) -> None:
        if (held := self._held(n)) is not None:
            assert self._run(queue.release(self.database, held)) == self.model.after(held, State.QUEUED)

    @rule(n=pick)
    def strike(self, n: int) -> None:
        if (held := self._held(n)) is not None:
            assert self._run(queue.strike(self.database, held, "died")) == self.model.strike(held)

    @rule(n=pick)
    def keep(self, n: int) -> None:
        if (held := self._held(n)) is not None:
            kept = self._run(queue.keep(self.database, held, Snapshot(held.epoch, [{"size": 1}])))
            one = self.model.held(held)
            assert kept == (one is not None)
            if one is not None:
                one.strikes = one.lost = 0

    @rule(n=pick)
    def cancel(self, n: int) -> None:
        if (one := self._work(n)) is not None:

            async def cancelled() -> Any:
                async with self.database.transaction(scope(one.tenant)) as statements:
                    return await queue.cancel(statements, scope(one.tenant), one.id)

            row = self._run(cancelled())
            assert (row["state"] if row else None) == self.model.cancel(one.id)

    @rule(n=pick)
    def retire(self, n: int) -> None:
        if (name := self._worker(n)) is not None:
            slot, active = self.model.workers[name]
            idle = active and not any(one.worker == name for one in self.model.work.values())
            assert self._run(queue.retire(self.database, name)) == idle
            self.model.workers[name] = (slot, active and not idle)

    @rule(n=pick)
    def die(self, n: int) -> None:
        """A worker is known to be dead."""
        if (name := self._worker(n)) is not None:
            held = [one for one in self.model.work.values() if one.worker == name]
            assert self._run(queue.orphan(self.database, name)) == len(held)
            self.model.workers[name] = (self.model.workers[name][0], False)
            for one in held:
                one.lease = self.model.now - 1

    @rule(n=pick, priority=st.integers(-1, 1))
    def change(self, n: int, priority: int) -> None:
        if (one := self._work(n)) is not None:
            changes = JobChanges(priority=priority)
            asks = training_jobs.change(Response(), self._service(), _actor(one), one.id, changes, "*")
            assert self._answered(asks) == (one.state not in states.TERMINAL)
            one.priority = one.priority if one.state in states.TERMINAL else priority

    @rule(n=pick)
    def delete(self, n: int) -> None:
        if (one := self._work(n)) is not None:
            gone = self._answered(training_jobs.removed(self._service(), _actor(one), one.id, "*"))
            assert gone == (one.state in states.TERMINAL)
            if gone:
                del self.model.work[one.id]

    @rule(seconds=st.sampled_from([1.37, 14.1, 15.2, 61.3, -7.7]))
    def pass_by(self, seconds: float) -> None:
        """Leases end; and a clock may be put back."""
        self.model.now += seconds

    def _service(self) -> Any:
        return SimpleNamespace(database=self.database)

    def _answered(self, asks: Coroutine[Any, Any, object]) -> bool:
        try:
            self._run(asks)
        except Refused as refused:
            status = refused.problem.status
        else:
            return True
        assert status == 409
        return False

    @invariant()
    def the_rows_are_the_models(self) -> None:
        if not hasattr(self, "database"):
            return
        self.model.settle()

        async def read() -> Any:
            async with self.database.reading(WORKER) as statements:
                return await statements.rows("select * from work"), await statements.rows("select * from workers")

        rows, workers = self._run(read())
        found = {row["id"]: (row["state"], row["epoch"], row["worker_id"], row["lease_until"], row["priority"],
                             row["cancel_requested_at"] is not None, row["strikes"], row["lost"])
                 for row in rows}  # fmt: skip
        assert found == {one.id: (one.state, one.epoch, one.worker, one.lease, one.priority, one.cancel, one.strikes,
                                  one.lost) for one in self.model.work.values()}  # fmt: skip
        for row in rows:
            over = State(row["state"]) in states.TERMINAL
            assert over == (row["finished_at"] is not None)
            assert row["result"] is None or (over and json.loads(row["result"])["of"] == row["epoch"])
        assert {row["id"]: row["state"] == "active" for row in workers} == {
            name: active for name, (_, active) in self.model.workers.items()
        }


def _actor(one: Work) -> Actor:
    return Actor(one.tenant, "", "", Role.MEMBER)


@pytest.fixture(scope="module", params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for made in sites_of(request, tmp_path_factory.mktemp("service")):
        asyncio.run(made.bare(STANDS_STILL, sqlite=False))
        yield made


def test_whatever_is_asked_in_whatever_order_the_queue_does_what_the_model_does(site: Site) -> None:
    class Here(Machine):
        pass

    Here.site = site
    some = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, derandomize=True, database=None,
                    suppress_health_check=list(HealthCheck), print_blob=False)  # fmt: skip
    run_state_machine_as_test(Here, settings=some)
