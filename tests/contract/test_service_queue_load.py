"""300 jobs of 10 tenants by POST, done by workers: each once, and no tenant gets ahead of another.

The long form, with times, is `python -m tests.benchmarks.service_queue sqlite postgres`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.service import queue
from pipeline.service.ids import Kind, new_id
from pipeline.service.words import Ending, Slot, State
from tests.servers.databases import KINDS, Site, needs_the_extra, sites_of

needs_the_extra()

from tests.benchmarks import service_queue  # noqa: E402
from tests.servers.service import standing  # noqa: E402

JOBS, TENANTS, WORKERS, ROUNDS = 300, 10, 8, 16


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    yield from sites_of(request, tmp_path)


def test_jobs_of_many_tenants_are_done_once_each_and_in_turns(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Callable[[str], None]
) -> None:
    monkeypatch.setattr(service_queue, "TRAIN_SECONDS", 0.0)
    with standing(site, tmp_path) as stand:
        tenants = asyncio.run(service_queue.made(stand, JOBS, TENANTS))
        assert [one.jobs for one in tenants] == [150, 17, 17, 17, 17, 17, 17, 16, 16, 16]
        told = asyncio.run(service_queue.post(stand.url, tenants))
        assert told == {201: JOBS}
        again = asyncio.run(service_queue.post(stand.url, tenants))
        assert again == {201: JOBS}, "the same keys are told the same answers"
    site.run(in_rounds(site, {one.id for one in tenants}))
    took = site.run(service_queue.train(site, tmp_path, WORKERS))
    assert len(took) == JOBS - ROUNDS * TENANTS, "each is claimed once"
    ended = asyncio.run(site.bare("select state, epoch, count(*) as n from @work group by state, epoch"))
    assert ended == [{"state": "succeeded", "epoch": 1, "n": JOBS}]
    fair = asyncio.run(service_queue.fairness(site, tenants, after=50))
    figures(f"{site.kind}: tenants with work were {fair.apart} jobs apart at most")


async def in_rounds(site: Site, tenants: set[str]) -> None:
    """As many workers as tenants, which begin and end together: in each round each tenant has one."""
    database = site.open()
    workers = [new_id(Kind.WORKER, time.time()) for _ in range(TENANTS)]
    for one in workers:
        await queue.enlist(database, one, "here", Slot.TRAIN)
    for _ in range(ROUNDS):
        held = [await queue.claim(database, one) for one in workers]
        assert {one.tenant for one in held if one is not None} == tenants
        for got in held:
            assert got is not None
            assert await queue.finish(database, got, Ending(State.SUCCEEDED, result={})) is State.SUCCEEDED
