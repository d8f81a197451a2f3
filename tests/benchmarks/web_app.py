"""What the web app costs in a real browser: bytes, first rows, 60 live jobs, a job of a million points, an open page.

`python -m tests.benchmarks.web_app [--points N] [--seconds N]`, over SQLite.  CPU is that of the tab's process and of
the server's; what waits for processors is wall time, told with the load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from pipeline.clock import Clock
from pipeline.service import queue, tenants
from pipeline.service.database.statements import Database
from pipeline.service.ids import Kind, new_id
from pipeline.service.keys import TenantKeys
from pipeline.service.queue import Chunk
from pipeline.service.summing import Summing
from pipeline.service.thinning import points_of, rows_of
from pipeline.service.words import PLATFORM, Actor, Claimed, Role, Slot
from pipeline.stores.local import LocalStore
from tests.benchmarks.service_speed import cpu_of
from tests.servers.chromium import browser
from tests.servers.databases import Site, sites
from tests.servers.demand import Server, free_port
from tests.servers.service import Person

HATHI = Path(__file__).parents[2] / ".venv/bin/hathi"
LIVE, CHUNK = 60, 1_000
SEEN = """selector => new Promise(done => {
  const look = () => document.querySelector(selector) ? done(performance.now()) : requestAnimationFrame(look);
  look(); })"""
"""Milliseconds from the navigation to the first frame in which it is there."""


@dataclass
class Live:
    """Sixty trainings that move each second, and one that has many points."""

    site: Site
    store: LocalStore
    person: Person
    held: list[Claimed] = field(default_factory=list)
    summing: dict[str, Summing] = field(default_factory=dict)
    ending: threading.Event = field(default_factory=threading.Event)

    async def claimed(self, database: Database, count: int) -> None:
        for number in range(count):
            await asyncio.to_thread(self.person.job, f"job {number}")
            worker = new_id(Kind.WORKER, time.time())
            await queue.enlist(database, worker, "here", Slot.TRAIN)
            found = await queue.claim(database, worker, 1e6)
            if found is None:
                raise RuntimeError("nothing was claimed")
            self.held.append(found)

    async def shipped(self, database: Database, held: Claimed, number: int, steps: range) -> None:
        """Rows of metrics as a worker ships them."""
        lines = [
            json.dumps({"step": step, "time": 1.0, "kind": "train", "values": {"train/loss": 2 / (1 + step % 977)}})
            for step in steps
        ]
        text = "\n".join(lines).encode() + b"\n"
        key = TenantKeys(self.person.tenant).chunk(held.id, held.epoch, "metrics", number)
        self.store.put(key, text)
        sums = self.summing.setdefault(held.id, Summing()).add(points_of(rows_of(text)), steps[0], steps[-1])
        await queue.ship(database, held, Chunk("metrics", steps[0], steps[-1], len(text), key, sums))

    async def moving(self, database: Database) -> None:
        """Each beats once in a second, and tells ten rows."""
        iteration = 0
        while not self.ending.is_set():
            began = time.monotonic()
            for held in self.held[:LIVE]:
                await self.shipped(database, held, iteration + 1, range(iteration * 10, iteration * 10 + 10))
                await queue.beat(database, held, {"iteration": iteration * 10, "of": 100_000, "seconds_left": 900.0})
            iteration += 1
            await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - began)))


async def _person(database: Database, url: str) -> Person:
    async with database.transaction(PLATFORM) as statements:
        await tenants.add_tenant(statements, "bench", Clock(), running=1000)
    user, tenant = await tenants.join(database, "bench", "ann", Role.ADMIN, Clock())
    return Person(
        url, await tenants.grant(database, Actor(tenant, user, "", Role.ADMIN, False), "bench", Clock()), tenant
    )


def tab_cpu(page: Page) -> float:
    """Seconds that the tab's process has computed."""
    session: Any = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["ProcessTime"])


def opened(running: Browser, person: Person, way: str, selector: str) -> tuple[Page, float]:
    """The page once the selector is there, in a context with a session; and after how many milliseconds."""
    page = running.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(300_000)
    page.goto(f"{person.url}/#link={person.token}")
    page.locator("nav").wait_for()
    page.goto("about:blank")
    page.goto(f"{person.url}/#/{way}", wait_until="commit")
    return page, float(page.evaluate(SEEN, selector))


def measured(running: Browser, live: Live, server: int, seconds: float) -> None:
    person, million = live.person, live.held[-1].id
    page, rows = opened(running, person, "jobs", "tbody tr td a")
    sizes = page.evaluate("performance.getEntriesByType('resource').filter(one => one.name.includes('/static/'))"
                          ".map(one => [one.decodedBodySize, one.transferSize])")  # fmt: skip
    print(f"files {sum(one[0] for one in sizes):,} bytes; first rows of {LIVE + 1} jobs after {rows:.0f} ms")
    thread = threading.Thread(target=lambda: live.site.run(live.moving(live.site.open())))
    thread.start()
    page.wait_for_timeout(5000)
    tab, api = tab_cpu(page), cpu_of(server)
    page.wait_for_timeout(seconds * 1000)
    print(f"{LIVE} live jobs: the tab {(tab_cpu(page) - tab) / seconds:.1%} of a processor, "
          f"the server {(cpu_of(server) - api) / seconds:.2%}")  # fmt: skip
    live.ending.set()
    thread.join()
    page.context.close()
    page, shown = opened(running, person, f"jobs/{million}", "figure.chart:not([data-points='0']) path.line")
    told = page.evaluate("(() => { const one = performance.getEntriesByType('resource').find(one => "
                         "one.name.includes('/metrics')); return [one.responseEnd, one.duration]; })()")  # fmt: skip
    drawn = page.locator("figure.chart").first.get_attribute("data-points")
    print(f"a job of a million points: {drawn} drawn {shown - told[0]:.0f} ms after they came, "
          f"{shown:.0f} ms after the navigation, of which the server's answer {told[1]:.0f} ms")  # fmt: skip
    page.wait_for_timeout(45_000)  # what is still is looked at less often after half a minute
    api = cpu_of(server)
    page.wait_for_timeout(seconds * 1000)
    looked = (cpu_of(server) - api) / seconds
    page.context.close()
    time.sleep(3)
    api = cpu_of(server)
    time.sleep(seconds)
    nobody = (cpu_of(server) - api) / seconds
    print(f"an open page of a job that does not move: the server {looked:.2%} of a processor, and {nobody:.2%} once "
          "nobody looks")  # fmt: skip


def bench(site: Site, folder: Path, running: Browser, args: argparse.Namespace) -> None:
    config, port = folder / "service.toml", free_port()
    config.write_text(
        f'state = "{folder}/state"\nlogs.folder = "{folder}/logs"\n[bucket]\nurl = "{folder}/bucket"\n'
        f'[service]\ndatabase = "{site.url}"\nlisten = "127.0.0.1:{port}"\n'
    )
    server = Server.start([HATHI, "service", "serve", "--config", config], log=folder / "hathi.log")
    try:
        server.until(lambda: "answers at" in (folder / "hathi.log").read_text(), "the API")
        person = site.run(_person(site.open(), f"http://127.0.0.1:{port}"))
        live = Live(site, LocalStore(folder / "bucket", fsync=False), person)
        site.run(live.claimed(site.open(), LIVE + 1))

        async def many(database: Database) -> None:
            for number in range(args.points // CHUNK):
                steps = range(number * CHUNK, (number + 1) * CHUNK)
                await live.shipped(database, live.held[-1], number + 1, steps)

        site.run(many(site.open()))
        print(f"load {os.getloadavg()[0]:.1f}")
        measured(running, live, server.process.pid, args.seconds)
        print(f"load {os.getloadavg()[0]:.1f}")
    finally:
        server.stop(20)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=30.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, browser() as running:
        for site in sites("sqlite", Path(name), None):
            bench(site, Path(name), running, args)


if __name__ == "__main__":
    main()
