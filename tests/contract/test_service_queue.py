"""The queue, on SQLite and on PostgreSQL: whose turn it is, leases, fences, cancels, strikes."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from pipeline.service import fairness, queue
from pipeline.service.database.statements import Database
from pipeline.service.fairness import Queued, Standing
from pipeline.service.ids import Kind, new_id
from pipeline.service.queue import LEASE_SECONDS, Chance, Chunk, Snapshot, Submission
from pipeline.service.words import Beaten, Claimed, Ending, Reason, Slot, State, scope
from tests.servers.databases import KINDS, Site, a_tenant, empty, sites_of

DONE = Ending(State.SUCCEEDED, result={"model": "m"})


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from sites_of(request, tmp_path_factory.mktemp("service"))


@pytest.fixture
def site(shared: Site) -> Site:
    empty(shared)
    return shared


@dataclass
class Stand:
    """A database with workers and tenants."""

    site: Site
    database: Database
    tenants: list[str] = field(default_factory=list)

    @classmethod
    async def made(cls, site: Site, *, tenants: int = 1, running: int = 1000) -> Stand:
        stand = cls(site, site.open())
        stand.tenants = [await a_tenant(stand.database, f"t{n}", running=running) for n in range(tenants)]
        return stand

    async def submit(
        self, tenant: int = 0, *, priority: int = 0, slot: Slot = Slot.TRAIN, seconds: float = 100.0
    ) -> str:
        name = new_id(Kind.TRAINING_JOB, time.time())
        realm = scope(self.tenants[tenant])
        async with self.database.transaction(realm) as statements:
            await queue.submit(statements, realm, Submission(name, "train", slot, {}, priority, seconds))
        return name

    async def worker(self, slot: Slot = Slot.TRAIN) -> str:
        name = new_id(Kind.WORKER, time.time())
        await queue.enlist(self.database, name, "here", slot)
        return name

    async def claimed(self, worker: str | None = None) -> Claimed:
        got = await queue.claim(self.database, worker or await self.worker())
        assert got is not None
        return got

    async def cancel(self, work: str, tenant: int = 0) -> State | None:
        realm = scope(self.tenants[tenant])
        async with self.database.transaction(realm) as statements:
            row = await queue.cancel(statements, realm, work)
        return State(row["state"]) if row is not None else None

    async def row(self, work: str, tenant: int = 0) -> dict[str, object]:
        async with self.database.reading(scope(self.tenants[tenant])) as statements:
            row = await statements.row("select * from work where id = $1", work)
        return dict(row or {})


def test_work_goes_from_queued_to_its_end_once(site: Site) -> None:
    async def look() -> None:
        stand = await Stand.made(site)
        name = await stand.submit()
        worker = await stand.worker()
        held = await stand.claimed(worker)
        assert (held.id, held.epoch, held.kind, held.cancel) == (name, 1, "train", False)
        assert await queue.claim(stand.database, worker) is None, "it is claimed once"
        beaten = await queue.beat(stand.database, held, {"iteration": 7})
        assert beaten is not None
        assert not beaten.cancel
        assert await queue.finish(stand.database, held, DONE) is State.SUCCEEDED
        row = await stand.row(name)
        assert (row["state"], row["progress"], row["worker_id"]) == ("succeeded", '{"iteration": 7}', None)
        for late in (queue.finish(stand.database, held, DONE), queue.beat(stand.database, held, {}),
                     queue.release(stand.database, held), queue.strike(stand.database, held, "x")):  # fmt: skip
            assert await late is None
        assert await stand.cancel(name) is None
        assert await stand.row(name) == row, "what is over never changes again"

    site.run(look())


def test_an_ended_lease_is_claimed_by_the_next_and_whoever_held_it_changes_nothing(site: Site) -> None:
    async def look() -> None:
        stand = await Stand.made(site)
        name = await stand.submit()
        frozen = await stand.claimed()
        await site.pass_by(queue.LEASE_SECONDS - 1)
        assert await queue.beat(stand.database, frozen, {}) is not None
        await site.pass_by(queue.LEASE_SECONDS - 1)
        other = await stand.worker()
        assert await queue.claim(stand.database, other) is None, "a beat holds the lease"
        await site.pass_by(2)
        heir = await stand.claimed(other)
        assert (heir.id, heir.epoch) == (name, 2)
        before = await stand.row(name)
        snapshot, chunk = Snapshot(10, [{"size": 1}]), Chunk("log", 0, 1, 1, "s/x")
        assert await queue.beat(stand.database, frozen, {"iteration": 99}) is None
        assert await queue.finish(stand.database, frozen, DONE) is None
        assert await queue.release(stand.database, frozen) is None
        assert await queue.strike(stand.database, frozen, "x") is None
        assert not await queue.ship(stand.database, frozen, chunk)
        assert not await queue.keep(stand.database, frozen, snapshot)
        assert await stand.row(name) == before
        for table in ("chunks", "snapshots"):
            assert await site.bare(f"select 1 from @{table}") == []
        assert await queue.finish(stand.database, heir, DONE) is State.SUCCEEDED

    site.run(look())


def test_a_cancel_that_was_granted_is_never_a_success(site: Site) -> None:
    async def look() -> None:
        stand = await Stand.made(site)
        names = [await stand.submit() for _ in range(5)]
        assert await stand.cancel(names[0]) is State.CANCELLED, "at once where it is queued"
        worker = await stand.worker()
        ends = [
            lambda held: queue.finish(stand.database, held, DONE),
            lambda held: queue.release(stand.database, held),
            lambda held: queue.strike(stand.database, held, "died"),
        ]
        for name, end in zip(names[1:4], ends, strict=True):
            held = await stand.claimed(worker)
            assert held.id == name
            assert await stand.cancel(name) is State.RUNNING
            assert await queue.beat(stand.database, held, {}) == Beaten(True)
            assert await end(held) is State.CANCELLED
        await stand.claimed(worker)
        await site.pass_by(60)
        assert await stand.cancel(names[4]) is State.CANCELLED, "at once where its lease has ended"
        assert await queue.claim(stand.database, worker) is None

    site.run(look())


def test_a_cancel_and_a_lost_worker_end_in_the_next_claim(site: Site) -> None:
    async def look() -> None:
        stand = await Stand.made(site)
        name = await stand.submit()
        await stand.claimed()
        assert await stand.cancel(name) is State.RUNNING
        await site.pass_by(60)
        assert await queue.claim(stand.database, await stand.worker()) is None
        assert (await stand.row(name))["state"] == "cancelled"

    site.run(look())


def test_a_hundred_races_of_cancel_and_finish_have_one_end_each(site: Site) -> None:
    async def look() -> None:
        stand = await Stand.made(site)
        other = Stand(site, site.open(), stand.tenants)
        worker = await stand.worker()
        seen: Counter[str] = Counter()
        for number in range(100):
            name = await stand.submit()
            held = await stand.claimed(worker)
            finish, cancel = queue.finish(stand.database, held, DONE), other.cancel(name)
            if number % 2:
                finished, cancelled = await asyncio.gather(finish, cancel)
            else:
                cancelled, finished = await asyncio.gather(cancel, finish)
            state = (await stand.row(name))["state"]
            assert state == str(finished)
            assert (state == "cancelled") == (cancelled is not None), "told so, and so it is"
            seen[str(state)] += 1
        assert set(seen) == {"cancelled", "succeeded"}, seen

    site.run(look())


def test_three_deaths_without_a_new_snapshot_fail_and_a_snapshot_begins_the_count_anew(site: Site) -> None:
    async def look() -> None:
        stand = await Stand.made(site)
        name = await stand.submit()
        worker = await stand.worker()
        for number in range(2):
            held = await stand.claimed(worker)
            assert await queue.strike(stand.database, held, f"died {number}") is State.QUEUED
        held = await stand.claimed(worker)
        assert await queue.keep(stand.database, held, Snapshot(10, [{"size": 5}]))
        assert await queue.keep(stand.database, held, Snapshot(10, [{"size": 5}])), "said twice, it stands once"
        for _ in range(2):
            assert await queue.strike(stand.database, held, "died") is State.QUEUED
            held = await stand.claimed(worker)
        assert held.epoch == 5
        assert await queue.strike(stand.database, held, "died of it") is State.FAILED
        row = await stand.row(name)
        assert (row["reason"], row["detail"], row["worker_id"]) == ("crashed", "died of it", None)

    site.run(look())


def test_what_takes_ten_workers_with_it_is_given_up(site: Site) -> None:
    async def look() -> None:
        stand = await Stand.made(site)
        name = await stand.submit()
        worker = await stand.worker()
        for _ in range(queue.LOST):
            await stand.claimed(worker)
            await site.pass_by(60)
        assert await queue.claim(stand.database, worker) is None
        row = await stand.row(name)
        assert (row["state"], row["reason"], row["epoch"]) == ("failed", Reason.CRASHED, queue.LOST)

    site.run(look())


def test_what_is_released_keeps_its_place_and_time_spent_is_counted(site: Site) -> None:
    async def look() -> None:
        stand = await Stand.made(site)
        first = await stand.submit(seconds=100.0)
        await stand.submit()
        worker = await stand.worker()
        held = await stand.claimed(worker)
        assert held.id == first
        assert held.seconds_left == 100.0
        await site.pass_by(10)
        assert await queue.release(stand.database, held) is State.QUEUED
        again = await stand.claimed(worker)
        assert (again.id, again.epoch) == (first, 2)
        assert again.seconds_left == pytest.approx(90.0, abs=1.0)

    site.run(look())


def test_a_worker_that_is_retired_gets_nothing_and_one_that_works_is_not_retired(site: Site) -> None:
    async def look() -> None:
        stand = await Stand.made(site)
        await stand.submit()
        busy, idle = await stand.worker(), await stand.worker()
        held = await stand.claimed(busy)
        assert not await queue.retire(stand.database, busy)
        assert await queue.retire(stand.database, idle)
        assert not await queue.retire(stand.database, idle)
        await stand.submit()
        assert await queue.claim(stand.database, idle) is None
        await queue.finish(stand.database, held, DONE)
        assert await queue.retire(stand.database, busy)

    site.run(look())


def test_a_worker_with_nothing_to_do_writes_nothing_but_that_it_is_there(site: Site) -> None:
    async def look() -> None:
        stand = await Stand.made(site, running=1)
        worker = await stand.worker()

        async def beat() -> float:
            (row,) = await site.bare(f"select beat_at from @workers where id = '{worker}'")
            return float(row["beat_at"])

        began = await beat()
        assert await queue.look(stand.database, worker) is Chance.NOTHING
        await stand.submit(slot=Slot.LIGHT)
        assert await queue.look(stand.database, worker) is Chance.NOTHING, "it is not for its kind"
        first, _ = await stand.submit(), await stand.submit()
        assert await queue.look(stand.database, worker) is Chance.CLAIM
        assert await beat() == began
        held = await stand.claimed(worker)
        assert held.id == first
        other = await stand.worker()
        assert await queue.look(stand.database, other) is Chance.NOTHING, "the tenant runs what it may"
        await site.pass_by(queue.IDLE_BEAT_SECONDS + 1)
        assert await queue.look(stand.database, other) is Chance.CLAIM, "it has to say that it is there"
        assert await queue.claim(stand.database, other) is None
        assert await queue.look(stand.database, other) is Chance.NOTHING
        await site.pass_by(LEASE_SECONDS)
        assert (await stand.claimed(other)).id == first
        assert await queue.retire(stand.database, worker)
        assert await queue.look(stand.database, worker) is Chance.RETIRED
        assert await queue.look(stand.database, "nobody") is Chance.RETIRED

    site.run(look())


def test_fifty_claims_and_retirings_at_once_end_no_busy_worker(site: Site) -> None:
    async def look() -> None:
        stand = await Stand.made(site)
        other = site.open()
        chance = random.Random(7)
        for _ in range(50):
            await stand.submit()
            worker = await stand.worker()
            ways = [queue.claim(stand.database, worker), queue.retire(other, worker)]
            chance.shuffle(ways)
            await asyncio.gather(*ways)
            found = await site.bare(
                f"""select state, (select count(*) from @work
                                   where worker_id = @workers.id and state = 'running') as held
                    from @workers where id = '{worker}'"""
            )
            assert (found[0]["state"] == "retired") == (found[0]["held"] == 0)

    site.run(look())


def test_work_of_one_slot_never_waits_behind_another(site: Site) -> None:
    async def look() -> None:
        stand = await Stand.made(site)
        for _ in range(5):
            await stand.submit()
        light = await stand.submit(slot=Slot.LIGHT)
        assert (await stand.claimed(await stand.worker(Slot.LIGHT))).id == light

    site.run(look())


def test_a_tenant_runs_no_more_than_it_may(site: Site) -> None:
    async def look() -> None:
        stand = await Stand.made(site, tenants=2, running=2)
        for _ in range(5):
            await stand.submit(0)
        await stand.submit(1)
        worker = await stand.worker()
        got = Counter([(await stand.claimed(worker)).tenant for _ in range(3)])
        assert got == {stand.tenants[0]: 2, stand.tenants[1]: 1}
        assert await queue.claim(stand.database, worker) is None

    site.run(look())


def test_claims_by_many_at_once_follow_the_rule_and_give_nothing_twice(site: Site) -> None:
    """The statement against the function that says the same: 6 tenants with weights, priorities, ends in between."""

    async def look() -> None:
        chance = random.Random(11)
        stand = await Stand.made(site, tenants=0)
        weights = [1, 1, 2, 3, 1, 1]
        stand.tenants = [await a_tenant(stand.database, f"w{n}", weight=w, running=7) for n, w in enumerate(weights)]
        waits: list[Queued] = []
        for order in range(60):
            tenant, priority = chance.choice([0, 0, 0, 1, 2, 3, 4, 5]), chance.choice([0, 0, 5])
            waits.append(Queued(stand.tenants[tenant], await stand.submit(tenant, priority=priority), priority, order))
        running: Counter[str] = Counter()
        served: dict[str, float] = {}
        worker, held = await stand.worker(), []
        for turn in range(1, 200):
            if held and chance.random() < 0.4:
                ended = held.pop(chance.randrange(len(held)))
                assert await queue.finish(stand.database, ended, DONE) is State.SUCCEEDED
                running[ended.tenant] -= 1
                continue
            standings = [
                Standing(tenant, running[tenant], weight, 7, served.get(tenant, 0.0))
                for tenant, weight in zip(stand.tenants, weights, strict=True)
            ]
            wanted = fairness.next_of(waits, standings)
            got = await queue.claim(stand.database, worker)
            assert (got.id if got else None) == (wanted.id if wanted else None)
            if got is not None and wanted is not None:
                waits.remove(wanted)
                running[got.tenant] += 1
                served[got.tenant] = turn
                held.append(got)
        assert not waits

    site.run(look())


def test_eight_workers_at_once_take_each_work_once_and_in_turn(site: Site) -> None:
    async def look() -> None:
        stand = await Stand.made(site, tenants=5)
        names = {await stand.submit(n % 5 if n < 40 else 0) for n in range(60)}
        got: list[Claimed] = []

        async def work(database: Database) -> None:
            worker = await stand.worker()
            while (one := await queue.claim(database, worker)) is not None:
                got.append(one)

        await asyncio.gather(*(work(site.open() if n % 4 == 0 else stand.database) for n in range(8)))
        assert len(got) == 60
        assert {one.id for one in got} == names

    site.run(look())


@pytest.mark.parametrize("running", [3, 1000])
def test_a_tenant_with_one_job_beside_one_with_five_thousand_begins_within_a_turn(site: Site, running: int) -> None:
    """Three workers are busy with the large tenant's jobs: the first that is free takes the small one's."""

    async def look() -> None:
        stand = await Stand.made(site, tenants=2, running=running)
        workers = [await stand.worker() for _ in range(3)]
        await stand.submit(0, priority=9)
        await site.bare(
            f"""insert into @work (tenant_id, id, kind, slot, state, priority, body, max_seconds, created_at)
                with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000)
                select '{stand.tenants[0]}', 'tj_' || i, 'train', 'train', 'queued', 9, '{{}}', 100.0, 1.0 + i from n"""
        )
        held = [await stand.claimed(worker) for worker in workers]
        assert {one.tenant for one in held} == {stand.tenants[0]}
        name = await stand.submit(1, priority=-9)
        assert await queue.finish(stand.database, held[1], DONE) is State.SUCCEEDED
        assert (await stand.claimed(workers[1])).id == name, "it waits for no second job of the other tenant"
        waits = await site.bare("select count(*) as n from @work where state = 'queued'")
        assert waits == [{"n": 4998}]

    site.run(look())
