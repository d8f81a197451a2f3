"""What the service costs beside its anchors, as CPU of the server's process: medians of interleaved rounds.

`python -m tests.benchmarks.service_speed [--requests N] [--points N] [--megabytes N]`: GET of a job beside bare
Starlette with asyncpg that does the same two statements, metrics in and out, and an upload that is cut twenty times.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.clock import Clock
from pipeline.service import queue, tenants
from pipeline.service.database.statements import Database
from pipeline.service.ids import Kind, new_id
from pipeline.service.words import PLATFORM, Actor, Role, Slot
from pipeline.service.work.shipping import Shipping
from pipeline.stores.local import LocalStore
from tests.servers import postgres
from tests.servers.databases import Site, sites
from tests.servers.demand import Server, free_port
from tests.servers.service import Person

HATHI = Path(__file__).parents[2] / ".venv/bin/hathi"
CHUNK = 1000
ROUNDS = 20
CONNECTIONS = 32
CUTS, PAUSE = 20, 0.1
"""Of an upload; and the seconds that its client waits before it goes on."""


def bare(url: str, port: int) -> None:
    """The anchor: two statements and an answer, no wall, no quota, no ETag, no document."""
    import asyncpg
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    pools: list[asyncpg.Pool] = []

    async def job(request: Request) -> JSONResponse:
        if not pools:
            pools.append(await asyncpg.create_pool(url, min_size=1, max_size=10))
        secret = request.headers["authorization"].removeprefix("Bearer ")
        async with pools[0].acquire() as connection:
            who = await connection.fetchrow(
                "select * from tokens where digest = $1", hashlib.sha256(secret.encode()).hexdigest()
            )
            row = await connection.fetchrow("select * from work where tenant_id = $1 and id = $2",
                                            request.headers["x-tenant"], request.path_params["job"])  # fmt: skip
        return JSONResponse({"known": who is not None, **dict(row or {})})

    app = Starlette(routes=[Route("/v1/training-jobs/{job}", job)])
    uvicorn.run(app, port=port, http="httptools", loop="uvloop", log_config=None, access_log=False)


def cpu_of(process: int) -> float:
    """Seconds that its threads have computed, those that ended not."""
    tasks = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(one.read_text().split()[0]) for one in tasks) / 1e9


def memory_of(process: int, what: str) -> int:
    """Bytes.  what: VmRSS or VmHWM."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(what))) * 1024


def requests(port: int, path: str, headers: dict[str, str], number: int) -> None:
    """So many GETs over connections that ask at the same time.  Raises RuntimeError for an answer that is none."""
    connections = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(CONNECTIONS)]
    for _ in range(max(1, number // CONNECTIONS)):
        for one in connections:
            one.request("GET", path, headers=headers)
        for one in connections:
            answer = one.getresponse()
            if answer.status != 200 or not answer.read():
                raise RuntimeError(f"{path}: {answer.status}")


@contextlib.contextmanager
def servers(site: Site, folder: Path) -> Iterator[tuple[Server, int, Server, int]]:
    """Hathi's and the bare one, each with its port."""
    ours, theirs = free_port(), free_port()
    config = folder / "service.toml"
    config.write_text(
        f'state = "{folder}/state"\nlogs.folder = "{folder}/logs"\n[bucket]\nurl = "{folder}/bucket"\n'
        f'[service]\ndatabase = "{site.url}"\nlisten = "127.0.0.1:{ours}"\n'
    )
    (folder / "bucket").mkdir()
    hathi = Server.start([HATHI, "service", "serve", "--config", config], log=folder / "hathi.log")
    command = [sys.executable, "-m", "tests.benchmarks.service_speed", "--bare", site.bare_url, str(theirs)]
    anchor = Server.start(command, log=folder / "bare.log")
    try:
        hathi.until(lambda: "answers at" in (folder / "hathi.log").read_text(), "the API")
        anchor.until(lambda: _answers(theirs), "the bare server")
        yield hathi, ours, anchor, theirs
    finally:
        hathi.stop(20)
        anchor.stop(20)


def _answers(port: int) -> bool:
    try:
        http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
    except OSError:
        return False
    return True


async def prepared(site: Site, folder: Path, points: int, url: str) -> tuple[str, str, str, float]:
    """A tenant with a job whose metrics are so many points, a spike in one; and the seconds of CPU to name 1,000."""
    database, store = site.open(), LocalStore(folder / "bucket", fsync=False)
    user, tenant = await _joined(database)
    token = await tenants.grant(database, Actor(tenant, user, "", Role.ADMIN, False), "bench", Clock())
    job = await asyncio.to_thread(Person(url, token).job)
    worker = new_id(Kind.WORKER, time.time())
    await queue.enlist(database, worker, "here", Slot.TRAIN)
    held = await queue.claim(database, worker, 1e6)
    if held is None:
        raise RuntimeError("nothing was claimed")
    out = Path(tempfile.mkdtemp(prefix="out-", dir=folder))
    shipping, spent = Shipping(database, store, held, out), []
    for number in range(points // CHUNK):
        with (out / "metrics.jsonl").open("a") as file:
            for step in range(number * CHUNK, (number + 1) * CHUNK):
                value = 99.0 if step == 777 else step % 7.0
                row = {"step": step, "time": 1764500000.123 + step, "kind": "train", "values": {"train/loss": value}}
                file.write(json.dumps(row) + "\n")
        began = time.process_time()
        if not await shipping.ship():
            raise RuntimeError("nothing was shipped")
        spent.append(time.process_time() - began)
    return tenant, token, job, statistics.median(spent)


async def _joined(database: Database) -> tuple[str, str]:
    async with database.transaction(PLATFORM) as statements:
        await tenants.add_tenant(statements, "bench", Clock(), running=10)
    return await tenants.join(database, "bench", "ann", Role.ADMIN, Clock())


def uploaded(person: Person, size: int, process: int) -> tuple[float, float, int]:
    """CPU seconds of the server a GB through the cuts, seconds without the client's pauses, and most bytes more."""
    before, began, computed = memory_of(process, "VmRSS"), time.monotonic(), cpu_of(process)
    name = person.got("POST", "/v1/datafiles", {"name": "big", "size": size})["id"]
    address, piece = urlsplit(person.url).netloc, os.urandom(2**20)
    most = before
    for cut in range(CUTS + 1):
        received = person.got("GET", f"/v1/datafiles/{name}")["received"]
        until = size if cut == CUTS else min(size, received + size // (CUTS + 1))
        connection = http.client.HTTPConnection(address)
        connection.putrequest("PUT", f"/v1/datafiles/{name}/content")
        connection.putheader("Authorization", f"Bearer {person.token}")
        connection.putheader("Content-Length", str(size - received))
        connection.putheader("Content-Range", f"bytes {received}-{size - 1}/{size}")
        connection.endheaders()
        for _ in range(0, until - received, len(piece)):
            connection.send(piece[: min(len(piece), until - received)])
            received += min(len(piece), until - received)
            most = max(most, memory_of(process, "VmRSS"))
        if cut == CUTS:
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"{answer.status} {answer.read()!r}")
        connection.close()
        time.sleep(PAUSE)
    return (cpu_of(process) - computed) / (size / 1e9), time.monotonic() - began - (CUTS + 1) * PAUSE, most - before


def copied(folder: Path, size: int) -> float:
    """Seconds in which `cat` writes so many bytes beside the bucket, and the disk has them, as it has an upload's."""
    piece, began = os.urandom(2**20), time.monotonic()
    with (folder / "copy").open("wb") as out:
        cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=out)
        assert cat.stdin is not None
        for at in range(0, size, len(piece)):
            cat.stdin.write(piece[: min(len(piece), size - at)])
        cat.stdin.close()
        cat.wait()
        os.fsync(out.fileno())
    (folder / "copy").unlink()
    return time.monotonic() - began


def told(figures: Iterable[float], digits: int = 0) -> str:
    """Their median, and the least and the greatest."""
    some = sorted(figures)
    return f"{statistics.median(some):.{digits}f} ({some[0]:.{digits}f} to {some[-1]:.{digits}f})"


def asked(of: Server, port: int, what: tuple[str, dict[str, str]], number: int) -> float:
    """Microseconds of a server's CPU a request.  what: path and headers."""
    before = cpu_of(of.process.pid)
    requests(port, *what, number)
    return (cpu_of(of.process.pid) - before) / number * 1e6


def main() -> None:
    """Prints one line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--bare", nargs=2, metavar=("URL", "PORT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        bare(args.bare[0], int(args.bare[1]))
        return
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory(prefix="hathi-bench-") as name, postgres.running() as server:
        folder = Path(name)
        for site in sites("postgres", folder, server):
            with servers(site, folder) as (hathi, ours, anchor, theirs):
                tenant, token, job, naming = site.run(prepared(site, folder, args.points, f"http://127.0.0.1:{ours}"))
                headers = {"Authorization": f"Bearer {token}", "X-Tenant": tenant}
                path = f"/v1/training-jobs/{job}"

                what, both = (path, headers), ((hathi, ours), (anchor, theirs))
                each = max(CONNECTIONS, args.requests // ROUNDS // CONNECTIONS * CONNECTIONS)
                rounds = [[asked(one, port, what, each) for one, port in both] for _ in range(ROUNDS)]
                print(f"GET job: {told(one[0] for one in rounds)} us CPU, bare {told(one[1] for one in rounds)} us, "
                      f"ratio {told((one[0] / one[1] for one in rounds), 2)} (goal 2.0)", flush=True)  # fmt: skip
                print(f"metrics in: {CHUNK} points in {naming * 1e3:.1f} ms CPU of the worker (goal 10)", flush=True)
                person = Person(f"http://127.0.0.1:{ours}", token)
                process = hathi.process.pid
                before, took = memory_of(process, "VmRSS"), []
                for _ in range(5):
                    began = cpu_of(process)
                    found = person.got("GET", f"{path}/metrics?points=1000")["metrics"]["train/loss"]
                    took.append((cpu_of(process) - began) * 1e3)
                more = memory_of(process, "VmHWM") - before
                spike = any(point[2] == 99.0 for point in found)
                print(f"metrics out: {args.points} points as {len(found)} in {told(took)} ms CPU (goal 100), "
                      f"spike kept: {spike}, {more / 2**20:.0f} MiB more", flush=True)  # fmt: skip
                rate, seconds, more = uploaded(person, args.megabytes * 10**6, process)
                cat = copied(folder, args.megabytes * 10**6)
                print(f"upload: {args.megabytes} MB through {CUTS} cuts: {rate:.2f} s CPU a GB, {seconds:.1f} s, "
                      f"cat {cat:.1f} s, ratio {cat / seconds:.2f} (goal 0.80), {more / 2**20:.0f} MiB more (goal 40)",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
