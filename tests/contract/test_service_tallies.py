"""What was claimed, and how good told times were: counted once, whoever is killed, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from pipeline.clock import Clock
from pipeline.service import queue, tallies
from pipeline.service.http.counting import Requests
from pipeline.service.metrics import ServiceMetrics
from pipeline.service.scaling import NOBODY
from pipeline.service.words import Ending, Reason, Slot, State
from pipeline.service.work import preparing
from pipeline.service.work.attempt import Hands, _Attempt
from pipeline.service.work.lease import Lease
from pipeline.service.work.training import Training
from pipeline.stores.local import LocalStore
from tests.contract.test_service_queue import Stand
from tests.servers.databases import KINDS, Site, sites_of

CLAIMED = (Slot.TRAIN, tallies.CLAIMS)


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    yield from sites_of(request, tmp_path)


def test_each_claim_is_counted_once_in_its_own_transaction_and_nothing_else_is(site: Site) -> None:
    async def told() -> None:
        stand = await Stand.made(site)
        assert await tallies.read(stand.database) == {}
        for _ in range(2):
            await stand.submit()
        await stand.submit(slot=Slot.LIGHT)
        worker = await stand.worker()
        held = await stand.claimed(worker)
        await queue.beat(stand.database, held, {"iteration": 1})
        await queue.release(stand.database, held)
        for _ in range(2):  # what was given back, and the other
            held = await stand.claimed(worker)
            await queue.finish(stand.database, held, Ending(State.SUCCEEDED, result={}))
        assert await queue.claim(stand.database, worker) is None
        await stand.claimed(await stand.worker(Slot.LIGHT))
        assert await tallies.read(stand.database) == {CLAIMED: 3.0, (Slot.LIGHT, tallies.CLAIMS): 1.0}

    site.run(told())


def test_many_workers_that_add_at_once_lose_nothing(site: Site) -> None:
    async def told() -> None:
        database = site.open()
        more = {tallies.ETAS: 1.0, tallies.ERROR: 0.5}
        await asyncio.gather(*(tallies.add(database, Slot.TRAIN, more) for _ in range(12)))
        assert await tallies.read(database) == {(Slot.TRAIN, name): 12 * value for name, value in more.items()}

    site.run(told())


def test_a_training_that_succeeds_adds_how_far_its_told_end_was_off_and_prometheus_is_shown_all(
    site: Site, tmp_path: Path
) -> None:
    """It tells 90 iterations of 2 s, and takes 210 s; one that fails then adds nothing."""
    at = 0.0
    clock = Clock(monotonic=lambda: at)
    (tmp_path / preparing.PREPARED).write_text(json.dumps({"max_iter": 100}))

    async def told() -> None:
        nonlocal at
        stand = await Stand.made(site)
        for ending in (Ending(State.SUCCEEDED, result={}), Ending(State.FAILED, Reason.DIVERGED, "nan")):
            await stand.submit()
            held, errand, at = await stand.claimed(), Training(clock), 1000.0
            hands = Hands(stand.database, LocalStore(tmp_path), clock, tmp_path, lambda: False, lambda text: None)
            one = _Attempt(hands, errand, Lease(stand.database, held, clock, confirmed=1000.0), tmp_path)
            for iteration in range(0, 11):
                at = 1000.0 + 2.0 * iteration
                errand.progress(tmp_path, iteration)
            errand.progress(tmp_path, 90)  # what is told later is not what was told first
            at, one._lease.confirmed = 1020.0 + 210.0, 1230.0
            await one._finish(ending)

    site.run(told())
    metrics = ServiceMetrics(site.url, NOBODY, Requests())
    text = generate_latest(metrics.registry).decode()
    shown = {
        "claims": 2.0,
        "etas": 1.0,
        "eta_told_seconds": 180.0,
        "eta_came_seconds": 210.0,
        "eta_error_seconds": 30.0,
    }
    for name, value in shown.items():
        assert f'hathi_service_{name}_total{{kind="train"}} {value}\n' in text
