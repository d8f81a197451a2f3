"""Workers that stand still (SIGSTOP) just before what they commit, beyond their lease, and wake when others have it.

`python -m tests.crash.service_zombies --zombies 100`.  The database's clock is put forward where a lease would be
waited for: the worker's own clock does not know, so it says what it has to say, and nothing may come of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.service import queue
from tests.crash import small_trainer
from tests.crash.service_site import Whole, whole
from tests.servers import tiny_training as tiny
from tests.servers.demand import until

POINTS = ("finish", "keep", "ship", "put", "beat")
ITERATIONS = 300


def zombies(site: Whole, times: int, seed: int, most: float = float("inf")) -> dict[str, Any]:
    """So many; what was tried in vain.  most: none begins after so many seconds.  Raises AssertionError."""
    for one in list(site.workers):
        site.end(one, seen=True)
    solver = site.solver(ITERATIONS, 100)
    inputs = {"train": site.datafile(tiny.rows()), "test": site.datafile(tiny.rows(1))}
    (site.folder / "train.h5").write_bytes(tiny.rows())
    right = small_trainer.undisturbed(site.folder / "train.h5", 1, ITERATIONS)
    woken, late = Counter[str](), 0
    sleeper = None
    began = time.monotonic()
    for number in range(times):
        if time.monotonic() - began > most:
            break
        point = POINTS[(number // 2) % len(POINTS)]
        if number % 2 == 0:  # each sleeper is used twice: what it does after it woke counts as well
            if sleeper is not None:
                site.end(sleeper, seen=True)
            sleeper = site.begin(point)
        assert sleeper is not None
        job = site.job(f"zombie-{seed}-{number}-{time.time()}", solver, inputs, 1)
        while not asleep(sleeper.server.process.pid) or not held(site, job):
            time.sleep(0.05)
            if asleep(sleeper.server.process.pid) and not held(site, job):
                sleeper.server.thaw()  # it stood still for what it did before
        asyncio.run(site.site.pass_by(queue.LEASE_SECONDS + 1.0))
        heir = site.begin()
        until(lambda job=job: ended(site, job), "the heir is at the end", 120)  # type: ignore[misc]
        heir.server.stop(30)
        site.workers.remove(heir)
        before = left(site, job)
        while not settled(sleeper.server.log, job):
            if asleep(sleeper.server.process.pid):
                sleeper.server.thaw()
            time.sleep(0.05)
        after = left(site, job)
        assert after["rows"] == before["rows"], f"{point}: a fenced attempt changed rows"
        new = after["objects"] - before["objects"]
        late += len(new)
        epoch = site.rows(f"select epoch from work where id = '{job}'")[0]["epoch"]
        assert all(f"/a{epoch - 1:06d}/" in key for key in new), f"{point}: objects outside its attempt: {new}"
        assert site.weights(job) == right
        woken[point] += 1
    if sleeper is not None:
        site.end(sleeper, seen=True)
    assert not site.rows("select * from strays")
    return {"woken at": dict(woken), "rows changed": 0, "objects that no row names, of their own attempt": late}


def asleep(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def held(site: Whole, job: str) -> bool:
    return bool(site.rows(f"select 1 as one from work where id = '{job}' and state = 'running'"))


def ended(site: Whole, job: str) -> bool:
    return bool(site.rows(f"select 1 as one from work where id = '{job}' and finished_at is not null"))


def settled(log: Path, job: str) -> bool:
    """Whether a worker has nothing more to do with it."""
    return f"{job}: another worker has it now" in log.read_text()


def left(site: Whole, job: str) -> dict[str, Any]:
    rows = [site.rows(f"select * from {table} where {column} = '{job}' order by 1, 2, 3, 4")
            for table, column in (("work", "id"), ("chunks", "work_id"), ("snapshots", "work_id"))]  # fmt: skip
    return {"rows": rows, "objects": {one for one in site.objects() if f"/{job}/" in one}}


def main() -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (("--zombies", 100), ("--seed", 0)):
        parser.add_argument(name, type=int, default=usual)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="none is begun after so many")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hathi-zombies-") as folder, whole(Path(folder)) as site:
        print(json.dumps(zombies(site, given.zombies, given.seed, given.seconds), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
