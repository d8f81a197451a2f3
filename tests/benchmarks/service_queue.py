"""10,000 queued jobs of 100 tenants, one of which has half: by POST, and by 20 workers; beside a million that are over.

    python -m tests.benchmarks.service_queue sqlite postgres --jobs 10000 --tenants 100 --workers 20 --finished 1000000

Times are of the wall and, since others may use the machine, of the processors: `API` is the server with its
database's client, `PostgreSQL` the database's own processes.  Workers are the product's own loops with a child that
sleeps 50 ms; what they do for each job is all that a real one costs, but for the process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline.clock import Clock
from pipeline.process.child import Ended
from pipeline.service import queue
from pipeline.service.database.statements import Database
from pipeline.service.ids import Kind, new_id
from pipeline.service.words import Claimed, Ending, Role, Slot, State, scope
from pipeline.service.work import attempt, worker
from pipeline.service.work.attempt import Hands
from pipeline.stores.local import LocalStore
from tests.servers import postgres
from tests.servers.databases import Site, sites
from tests.servers.service import NET, SOLVER, Stand, standing

TRAIN_SECONDS = 0.05
QUIET = 500
"""Claims of one worker with nobody beside it."""
CONNECTIONS = 16
ROOM = '{"queued": 1000000, "submitted": 1000000, "running": 1000, "stored_bytes": 1000000000}'


@dataclass(frozen=True)
class Tenant:
    """Who posts jobs."""

    id: str
    token: str
    solver: str
    jobs: int


def shares(jobs: int, tenants: int) -> list[int]:
    """How many jobs each has: the first one half."""
    rest = jobs - jobs // 2
    return [jobs // 2, *(rest // (tenants - 1) + (n < rest % (tenants - 1)) for n in range(tenants - 1))]


async def made(stand: Stand, jobs: int, tenants: int) -> list[Tenant]:
    """Tenants whose limits are no hindrance, each with a solver that was judged."""
    found = []
    for number, share in enumerate(shares(jobs, tenants)):
        who = await asyncio.to_thread(stand.person, f"tenant{number}", f"user{number}", Role.MEMBER)
        solver = new_id(Kind.SOLVER, time.time())
        await stand.site.bare(f"update @tenants set running = 1000, quotas = '{ROOM}' where id = '{who.tenant}'")
        database = stand.site.open()
        async with database.transaction(scope(who.tenant)) as statements:
            await statements.row(
                """insert into solvers (tenant_id, id, name, solver, net, created_at)
                   values ($1, $2, 'solver', $3, $4, instant()) returning id""",
                who.tenant, solver, SOLVER, NET,
            )  # fmt: skip
            await statements.row(
                """insert into judgements (tenant_id, solver_id, dataset_id, solver, net, price, warnings, inputs)
                   values ($1, $2, null, $3, $4, '{}', '[]', '[]') returning solver_id""",
                who.tenant, solver, SOLVER, NET,
            )  # fmt: skip
        await database.close()
        stand.site.opened.remove(database)
        found.append(Tenant(who.tenant, who.token, solver, share))
    return found


async def post(url: str, tenants: Sequence[Tenant], connections: int = CONNECTIONS) -> Counter[int]:
    """All jobs, in turns of the tenants, each with a key of its own: how often which status was answered."""
    import aiohttp

    left = [(tenant, n) for n in range(max(one.jobs for one in tenants)) for tenant in tenants if n < tenant.jobs]
    left.reverse()
    statuses: Counter[int] = Counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:

        async def some() -> None:
            while left:
                tenant, n = left.pop()
                headers = {"Authorization": f"Bearer {tenant.token}", "Idempotency-Key": f"job-{n}"}
                body = {"name": f"job {n}", "solver_id": tenant.solver, "inputs": {}}
                async with session.post(f"{url}/v1/training-jobs", json=body, headers=headers) as answer:
                    await answer.read()
                    statuses[answer.status] += 1

        await asyncio.gather(*(some() for _ in range(connections)))
    return statuses


class Sleeper:
    """A child that trains nothing for 50 ms."""

    def __init__(self, command: list[str], environ: object) -> None:
        self.pid = 0

    def wait(self) -> Ended:
        time.sleep(TRAIN_SECONDS)
        return Ended(0)

    def end(self) -> None:
        pass

    def kill(self) -> None:
        pass


async def train(site: Site, folder: Path, workers: int, most: int = 10**9) -> list[float]:
    """The product's workers until nothing is queued, or so many claims: how many seconds each claim took."""
    took: list[float] = []
    real = queue.claim

    async def claim(database: Database, name: str, lease: float = queue.LEASE_SECONDS) -> Claimed | None:
        began = time.perf_counter()
        found = await real(database, name, lease) if len(took) < most else None
        if found is not None:
            took.append(time.perf_counter() - began)
        return found

    store = LocalStore(folder / "bucket", fsync=False)
    databases = [site.open() for _ in range(max(1, workers // 5))]

    async def one(number: int) -> None:
        hands = Hands(databases[number % len(databases)], store, Clock(), folder / "scratch", lambda: False, _silent)
        await worker._work(hands, new_id(Kind.WORKER, time.time()), Slot.TRAIN, True)

    with mock.patch.object(attempt, "Child", Sleeper), mock.patch.object(queue, "claim", claim):
        await asyncio.gather(*(one(number) for number in range(workers)))
    return took


async def quiet(site: Site, number: int) -> float:
    """Claims a second of one worker that ends each at once; nobody is beside it."""
    database, name = site.open(), new_id(Kind.WORKER, time.time())
    await queue.enlist(database, name, "here", Slot.TRAIN)
    spent = 0.0
    for _ in range(number):
        began = time.perf_counter()
        held = await queue.claim(database, name)
        spent += time.perf_counter() - began
        assert held is not None
        await queue.finish(database, held, Ending(State.SUCCEEDED, result={}))
    return number / spent


@dataclass(frozen=True)
class Fairness:
    """Of the instants after the first 200 ends.  apart: the most and the least that tenants with work had finished,
    at worst; ratio: of the two, where the least has ten."""

    apart: int
    ratio: float


async def fairness(site: Site, tenants: Sequence[Tenant], after: int = 200, least: int = 10) -> Fairness:
    """From the order in which work ended, over the tenants that still had work in the queue."""
    rows = await site.bare("select tenant_id, finished_at from @work where state = 'succeeded' and result is not null "
                           "and claimed_at is not null order by finished_at")  # fmt: skip
    done: Counter[str] = Counter()
    apart, ratio = 0, 1.0
    for number, row in enumerate(rows):
        done[row["tenant_id"]] += 1
        counts = [done[one.id] for one in tenants if done[one.id] < one.jobs]
        if number < after or len(counts) < 2:
            continue
        apart = max(apart, max(counts) - min(counts))
        if min(counts) >= least:
            ratio = max(ratio, max(counts) / min(counts))
    return Fairness(apart, ratio)


async def fill(site: Site, tenants: Sequence[Tenant], number: int) -> None:
    """So many jobs that are over, older than all: half of them the first tenant's."""
    for tenant, share in zip(tenants, shares(number, len(tenants)), strict=True):
        await site.bare(
            f"""insert into @work (tenant_id, id, kind, slot, state, solver_id, body, max_seconds, created_at,
                                   finished_at)
                with recursive n(i) as (select 1 union all select i + 1 from n where i < {share})
                select '{tenant.id}', 'tj_0' || cast(1000000000 + i as text), 'train', 'train', 'succeeded',
                       '{tenant.solver}', '{{"name": "old", "inputs": {{}}}}', 100.0, 1.0 + i, 2.0 + i from n"""
        )


def pages(stand: Stand, tenant: Tenant, number: int) -> list[float]:
    """How many seconds each first page of 50 took."""
    import requests

    took, session = [], requests.Session()
    for _ in range(number):
        began = time.perf_counter()
        answer = session.get(f"{stand.url}/v1/training-jobs", headers={"Authorization": f"Bearer {tenant.token}"})
        took.append(time.perf_counter() - began)
        assert answer.ok
    return took


def cpu_of(server: postgres.Postgres | None) -> float:
    """Seconds of processor time of a PostgreSQL with all its processes."""
    if server is None:
        return 0.0
    spent, parent = 0.0, server.server.process.pid
    for one in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = one.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(one.parent.name) == parent or int(words[1]) == parent:
            spent += sum(map(int, words[11:15] if int(one.parent.name) == parent else words[11:13]))
    return spent / os.sysconf("SC_CLK_TCK")


def p99(took: Sequence[float]) -> float:
    return sorted(took)[int(len(took) * 0.99)] * 1000 if took else 0.0


class Meter:
    """Seconds of the wall, of this process and of PostgreSQL since it was made."""

    def __init__(self, server: postgres.Postgres | None) -> None:
        self._server = server
        self._began = self._now()

    def _now(self) -> tuple[float, float, float]:
        return time.monotonic(), time.process_time(), cpu_of(self._server)

    def __call__(self) -> tuple[float, float, float]:
        wall, cpu, theirs = (now - then for now, then in zip(self._now(), self._began, strict=True))
        return wall, cpu, theirs


def measure(kind: str, asked: argparse.Namespace, server: postgres.Postgres | None, say: Callable[[str], None]) -> None:
    """Prints one database's figures."""
    with tempfile.TemporaryDirectory() as name:
        for site in sites(kind, Path(name), server):
            with standing(site, Path(name)) as stand:
                tenants = asyncio.run(made(stand, asked.jobs, asked.tenants))
                if asked.finished:
                    meter = Meter(server)
                    asyncio.run(fill(site, tenants, asked.finished))
                    asyncio.run(site.bare("analyze"))
                    say(f"{kind}: {asked.finished:,} jobs that are over were written in {meter()[0]:.0f} s")
                _posts(stand, tenants, Meter(server), lambda text: say(f"{kind}: {text}"))
                took = pages(stand, tenants[0], 200)
                say(f"{kind}: first page of 50: p99 {p99(took):.1f} ms")
                number, meter = min(QUIET, asked.jobs // 4), Meter(server)
                rate = site.run(quiet(site, number))
                _, cpu, theirs = (one / number * 1000 for one in meter())
                says = f"a claim with its end takes {cpu:.2f} ms of its CPU and {theirs:.2f} ms of PostgreSQL's"
                say(f"{kind}: one worker alone: {rate:.0f} claims/s; {says}")
                meter = Meter(server)
                took = site.run(train(site, Path(name), asked.workers))
                wall, cpu, theirs = meter()
                cpu, theirs = cpu / len(took) * 1000, theirs / len(took) * 1000
                says = f"{cpu:.1f} ms of the workers' CPU a job and {theirs:.1f} ms of PostgreSQL's"
                say(f"{kind}: {asked.workers} workers, {len(took):,} jobs in {wall:.0f} s")
                say(f"{kind}: claim p99 {p99(took):.0f} ms; {says}")
                fair = asyncio.run(fairness(site, tenants))
                say(f"{kind}: tenants with work were {fair.apart} jobs apart at most, and 1 : {fair.ratio:.2f}")


def _posts(stand: Stand, tenants: Sequence[Tenant], meter: Meter, say: Callable[[str], None]) -> None:
    path = stand.folder / "client.json"
    path.write_text(json.dumps([stand.url, [vars(one) for one in tenants]]))
    _client(path, say)
    wall, cpu, theirs = meter()
    jobs = sum(one.jobs for one in tenants)
    say(f"{jobs:,} POSTs in {wall:.1f} s; the API took {cpu:.1f} s of CPU, and PostgreSQL {theirs:.1f} s")


def _client(path: Path, say: Callable[[str], None]) -> None:
    """Another process posts, so that its time is not the server's."""
    import subprocess

    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.service_queue", "--client", str(path)],
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    say(f"answers: {done.stdout.strip()}")


def _silent(text: str) -> None:
    return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("databases", nargs="*", default=["sqlite"])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--tenants", type=int, default=100)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--finished", type=int, default=0)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.client:
        url, tenants = json.loads(Path(asked.client).read_text())
        print(dict(asyncio.run(post(url, [Tenant(**one) for one in tenants]))))
        return 0
    say: Callable[[str], Any] = lambda text: print(text, flush=True)  # noqa: E731
    for kind in asked.databases:
        if kind == "postgres":
            with postgres.running() as server:
                measure(kind, asked, server, say)
        else:
            measure(kind, asked, None, say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
