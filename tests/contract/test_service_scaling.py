"""Workers that come and go, on SQLite and PostgreSQL: what is counted, what is told, and that no busy one is ended."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.operations.metrics import answering
from pipeline.service import backlog, queue
from pipeline.service.database.statements import Database
from pipeline.service.http.counting import Requests
from pipeline.service.ids import Kind, new_id
from pipeline.service.metrics import ServiceMetrics
from pipeline.service.queue import Chance, Submission
from pipeline.service.scaling import Bounds, Queue, Rules, wanted_now
from pipeline.service.words import WORKER, Claimed, Ending, Role, Slot, State, scope
from tests.servers.databases import KINDS, Site, a_tenant, empty, sites_of
from tests.servers.service import standing

DONE = Ending(State.SUCCEEDED, result={})
EVENTS = 1000
PAGE = Path(__file__).parents[2] / "docs/service.md"


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from sites_of(request, tmp_path_factory.mktemp("service"))


@pytest.fixture
def site(shared: Site) -> Site:
    empty(shared)
    return shared


async def submit(database: Database, tenant: str, kind: str = "train", slot: Slot = Slot.TRAIN) -> str:
    name = new_id(Kind.TRAINING_JOB, time.time())
    async with database.transaction(scope(tenant)) as statements:
        await queue.submit(statements, scope(tenant), Submission(name, kind, slot, {}))
    return name


@dataclass
class Crowd:
    """Workers that do one thing at a time, and a pool that retires them meanwhile.  ended: by a retirement."""

    site: Site
    databases: list[Database]
    tenants: list[str]
    chance: random.Random
    held: dict[str, Claimed | None] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @classmethod
    async def made(cls, site: Site, seed: int) -> Crowd:
        databases = [site.open() for _ in range(3)]
        tenants = [await a_tenant(databases[0], f"t{n}", running=5) for n in range(3)]
        return cls(site, databases, tenants, random.Random(seed))

    def any(self) -> Database:
        return self.chance.choice(self.databases)

    async def enlist(self) -> None:
        name = new_id(Kind.WORKER, time.time())
        await queue.enlist(self.any(), name, "here", Slot.TRAIN)
        self.held[name] = None

    async def claim(self, name: str) -> None:
        got = await queue.claim(self.any(), name)
        self.counts["claim"] += got is not None
        if got is not None:
            self.held[name] = got

    async def retire(self, name: str) -> None:
        if await queue.retire(self.any(), name):
            self.ended.add(name)
            self.counts["retire"] += 1

    async def over(self, name: str, how: str) -> None:
        held, self.held[name] = self.held[name], None
        assert held is not None
        verbs: dict[str, Callable[[], Awaitable[object]]] = {
            "finish": lambda: queue.finish(self.any(), held, DONE),
            "release": lambda: queue.release(self.any(), held),
        }
        self.counts[how] += await verbs[how]() is not None

    async def beat(self, name: str) -> None:
        held = self.held[name]
        if held is not None and await queue.beat(self.any(), held, {}) is None:
            self.held[name] = None

    async def die(self, name: str) -> None:
        self.dead.add(name)
        del self.held[name]
        self.counts["die"] += await queue.orphan(self.any(), name)

    def own(self, name: str) -> Awaitable[None]:
        """What a worker does next."""
        if self.chance.random() < 0.05:
            return self.die(name)
        if self.held[name] is None:
            return self.claim(name)
        if self.chance.random() < 0.4:
            return self.beat(name)
        return self.over(name, self.chance.choice(["finish", "finish", "release"]))

    async def round(self) -> int:
        """Some things at once; how many."""
        living = sorted(set(self.held) - self.ended)
        some = self.chance.sample(living, min(len(living), 4))
        happens = [self.own(one) for one in some]
        happens += [self.retire(one) for one in some if self.chance.random() < 0.4]
        happens += [submit(self.any(), self.chance.choice(self.tenants)) for _ in range(self.chance.choice([0, 1, 1]))]
        if len(living) < 6:
            happens.append(self.enlist())
        self.chance.shuffle(happens)
        await asyncio.gather(*happens)
        if self.chance.random() < 0.02:
            await self.site.pass_by(queue.LEASE_SECONDS + 1)
        async with self.any().reading(WORKER) as statements:
            busy = await statements.rows("select worker_id from work where state = 'running'")
        for name in {row["worker_id"] for row in busy} & self.ended:
            self.wrong.append(f"{name} was ended with work in its hands")
        return len(happens)


async def crowded(site: Site, seed: int, events: int) -> Crowd:
    crowd, happened = await Crowd.made(site, seed), 0
    while happened < events and not crowd.wrong:
        happened += await crowd.round()
    return crowd


def test_no_busy_worker_is_ended_in_a_thousand_events(site: Site, figures: Callable[[str], None]) -> None:
    async def look() -> None:
        crowd = await crowded(site, 5, EVENTS)
        assert crowd.wrong == []
        for name in crowd.ended:
            assert await queue.claim(crowd.any(), name) is None, "a retired worker gets nothing"
            assert await queue.look(crowd.any(), name) is Chance.RETIRED
        struck = await site.bare("select id from @work where strikes > 0 or state = 'failed'")
        assert struck == [], "nothing of that is anybody's fault"
        told = ", ".join(f"{number} {name}" for name, number in sorted(crowd.counts.items()))
        figures(f"{site.kind}: {EVENTS} events; that did something: {told}")
        assert min(crowd.counts[one] for one in ("claim", "retire", "finish", "release", "die")) >= 5

    site.run(look())


def test_a_retirement_that_looks_first_and_acts_later_is_found(site: Site) -> None:
    async def hasty(database: Database, worker: str) -> bool:
        async with database.reading(WORKER) as statements:
            sql = "select 1 from work where worker_id = $1 and state = 'running'"
            busy = await statements.row(sql, worker)
        await asyncio.sleep(0)
        if busy is not None:
            return False
        async with database.transaction(WORKER) as statements:
            sql = "update workers set state = 'retired' where id = $1 and state = 'active' returning id"
            return await statements.row(sql, worker) is not None

    async def look() -> None:
        with mock.patch.object(queue, "retire", hasty):
            assert (await crowded(site, 5, EVENTS)).wrong != []

    site.run(look())


def test_what_waits_is_counted_by_tenant_with_the_time_that_its_like_took(site: Site) -> None:
    async def look() -> None:
        database = site.open()
        one, other = [await a_tenant(database, name, running=2) for name in ("one", "other")]
        for name in ("a", "b", "c"):
            await queue.enlist(database, name, "here" if name == "a" else "there", Slot.TRAIN)
        took = backlog.Took()
        assert (await backlog.read(database, took))[Slot.TRAIN].hosts == {"here": 1, "there": 2}
        for _ in range(2):
            await submit(database, one)
            held = await queue.claim(database, "a")
            assert held is not None
            await site.pass_by(9.0)
            assert await queue.finish(database, held, DONE) is State.SUCCEEDED
        await submit(database, one)
        held = await queue.claim(database, "a")
        assert held is not None
        for _ in range(3):
            await submit(database, one)
        await submit(database, other)
        await submit(database, other, "import", Slot.LIGHT)
        await site.pass_by(5.0)
        load = (await backlog.read(database, took))[Slot.TRAIN]
        assert (load.queued, load.running, load.workers) == (4, 1, 1), "two were silent for too long"
        mine, theirs = sorted(load.queues, key=lambda one: -one.queued)
        assert (mine.queued, mine.startable) == (3, 1)
        assert mine.seconds == pytest.approx(27.0, abs=3.0)
        assert theirs == Queue(1, 60.0, 2)
        assert load.oldest == pytest.approx(5.0, abs=2.0)
        assert await queue.beat(database, held, {"iteration": 20, "seconds_left": 300.0}) is not None
        assert await queue.release(database, held) is State.QUEUED
        load = (await backlog.read(database, took))[Slot.TRAIN]
        assert sum(one.seconds for one in load.queues) == pytest.approx(387.0, abs=3.0), "as it told itself"
        await site.pass_by(backlog.HEARD_SECONDS)
        assert (await backlog.read(database, took))[Slot.TRAIN].workers == 0, "nobody heard of them"

    site.run(look())


def test_a_worker_that_was_silent_for_a_week_is_forgotten_when_another_comes(site: Site) -> None:
    async def look() -> None:
        database = site.open()
        await queue.enlist(database, "old", "here", Slot.TRAIN)
        await site.pass_by(queue.FORGOTTEN + 1)
        await queue.enlist(database, "new", "here", Slot.TRAIN)
        assert [row["id"] for row in await site.bare("select id from @workers")] == ["new"]
        assert await queue.look(database, "old") is Chance.RETIRED
        assert await queue.look(database, "new") is not Chance.RETIRED

    site.run(look())


def gjson(document: Any, path: str) -> Any:
    """What KEDA's metrics-api scaler reads at its valueLocation: names between dots."""
    for name in path.split("."):
        document = document[name]
    return document


def test_the_number_is_told_to_an_operator_of_the_installation_where_keda_reads_it(
    shared: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    empty(shared)
    rules = Rules({Slot.TRAIN: Bounds(0, 4), Slot.LIGHT: Bounds(1, 2)}, target_wait=60.0)
    with standing(shared, tmp_path_factory.mktemp("stand"), rules=rules) as stand:
        ann, ops = stand.person("ayes", "ann"), stand.person("bees", "ops", Role.VIEWER, platform=True)
        answer = ops.got("GET", "/v1/scaling")
        assert gjson(answer, "kinds.train.desired") == 0
        assert gjson(answer, "kinds.light.desired") == 1
        for _ in range(6):
            ann.job()
        answer = ops.got("GET", "/v1/scaling")
        (place,) = re.findall(r"valueLocation: ([\w.]+)", PAGE.read_text())
        assert gjson(answer, place) == 4
        (shown,) = re.findall(r"```json\n(\{\"kinds\".*)\n```", PAGE.read_text())
        assert {name: set(one) for name, one in json.loads(shown)["kinds"].items()} == {
            name: set(one) for name, one in answer["kinds"].items()
        }
        kind = answer["kinds"]["train"]
        assert (kind["queued"], kind["running"], kind["workers"]) == (6, 0, 0)
        assert 0 < kind["oldest_seconds"] < 60
        refused = ann.ask("GET", "/v1/scaling")
        assert (refused.status_code, refused.json()["type"]) == (403, "/problems/role"), "an admin of a tenant is none"
        loads = shared.run(backlog.read(shared.open(), backlog.Took()))
        assert wanted_now(loads, rules)[Slot.TRAIN].desired == 4


def test_prometheus_reads_what_the_page_lists_and_a_database_that_is_away_is_a_figure(site: Site) -> None:
    documented = set(re.findall(r"`(hathi_service_\w+)(?:\{[^}]*\})?`", PAGE.read_text()))
    rules, requests = Rules({slot: Bounds(1, 4) for slot in Slot}), Requests()
    for status, seconds in ((200, 0.004), (200, 0.3), (404, 60.0)):
        requests.note("GET", status, seconds)
    requests.note("MADE-UP", 400, 0.004)

    async def fill() -> None:
        tenant = await a_tenant(site.open(), "one", running=9)
        for _ in range(3):
            await submit(site.opened[0], tenant)
        await queue.enlist(site.opened[0], "a", "here", Slot.TRAIN)
        assert await queue.claim(site.opened[0], "a") is not None

    site.run(fill())
    said: list[str] = []
    with answering(ServiceMetrics(site.url, rules, requests), "127.0.0.1", 0, said.append) as port:
        text = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).read().decode()
    families = list(text_string_to_metric_families(text))
    names = {f"{one.name}_total" if one.type == "counter" else one.name for one in families}
    assert names == documented
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value for one in families for sample in one.samples
    }
    took = "hathi_service_request_seconds"
    assert values["hathi_service_work", "queued", "train"] == 2
    assert values["hathi_service_work", "running", "train"] == 1
    assert values["hathi_service_workers", "train"] == 1
    assert values["hathi_service_workers_desired", "train"] == 3
    assert values["hathi_service_workers_desired", "light"] == 1
    assert values["hathi_service_requests_total", "200", "GET"] == 2
    assert values["hathi_service_requests_total", "400", "other"] == 1
    assert values[f"{took}_bucket", "0.005"] == 2
    assert values[f"{took}_bucket", "0.5"] == 3
    assert values[f"{took}_bucket", "+Inf"] == values[f"{took}_count",] == 4
    away = "postgresql://nobody@127.0.0.1:9/x" if site.kind == "postgres" else f"{site.url}/absent/x"
    found = {one.name: one for one in ServiceMetrics(away, rules, requests).collect()}
    assert found["hathi_service_database_up"].samples[0].value == 0
    assert found["hathi_service_workers_desired"].samples == []
    assert said == []
