"""Cancels at random instants of a training, of children that ignore SIGTERM or are in a long product of matrices, too.

`python -m tests.crash.service_cancels --cancels 200`: each ends as `cancelled`, its process group is empty, and the
database says when.  Prints the seconds; 1 where a law was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.crash.service_site import Whole, whole
from tests.crash.service_storm import children_of
from tests.servers import tiny_training as tiny
from tests.servers.demand import until

WORKERS = 3
GOAL_SECONDS = 5.0
KINDS = ("job", "deaf job", "deaf busy job", "job", "short job")


def cancels(site: Whole, times: int, seed: int, most: float = float("inf")) -> dict[str, Any]:
    """So many; what came of them.  most: none begins after so many seconds.  Raises AssertionError for a broken law."""
    chance = random.Random(seed)
    while len(site.workers) < WORKERS:
        site.begin()
    inputs = {"train": site.datafile(tiny.rows()), "test": site.datafile(tiny.rows(1))}
    long, short = site.solver(100_000, 50), site.solver(150, 50)
    seconds, states, granted = [], Counter[str](), 0
    asked: dict[str, float] = {}
    due: list[tuple[float, str]] = []
    began = time.monotonic()
    for number in range(times):
        last = number == times - 1 or time.monotonic() - began > most
        kind = KINDS[number % len(KINDS)]
        job = site.job(f"cancel-{seed}-{number}-{time.time()}", short if "short" in kind else long, inputs, 1, kind)
        due.append((time.monotonic() + chance.choice([0.0, 0.3, 1.0, 2.0, 3.0]) * chance.random(), job))
        while len(due) > WORKERS or (last and due):
            at, first = min(due)
            due.remove((at, first))
            time.sleep(max(0.0, at - time.monotonic()))
            answer = site.once("POST", f"/v1/training-jobs/{first}/cancel")
            assert answer.status_code in (200, 202, 409), answer.text  # 409: it was over before
            if answer.ok:
                asked[first] = time.time()
                granted += 1
        if last:
            times = number + 1
            break
    until(lambda: not site.rows("select 1 as one from work where finished_at is null"), "all are over", 120)
    for job, since in asked.items():
        (row,) = site.rows(f"select state, cancel_requested_at, finished_at, epoch from work where id = '{job}'")
        states["unclaimed" if not row["epoch"] else row["state"]] += 1
        assert row["state"] == "cancelled", (job, row, since)
        seconds.append(row["finished_at"] - row["cancel_requested_at"])
    until(lambda: not any(children_of(one.server.process.pid) for one in site.workers), "no child is left", 10)
    assert not strangers(asked), "its process group is empty"
    seconds.sort()
    return {"cancels": granted, "came too late": times - granted, "states": dict(states),
            "seconds": {"median": round(seconds[len(seconds) // 2], 2), "p99": round(at_99(seconds), 2),
                        "most": round(seconds[-1], 2)},
            "below the goal": f"{sum(one < GOAL_SECONDS for one in seconds)} of {granted}"}  # fmt: skip


def at_99(ordered: list[float]) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def strangers(jobs: dict[str, float]) -> list[int]:
    """Processes that work in a folder of one of these jobs."""
    found = []
    for one in Path("/proc").glob("[0-9]*"):
        try:
            where = os.readlink(one / "cwd")
        except OSError:
            continue  # it has just ended
        if any(job in where for job in jobs):
            found.append(int(one.name))
    return found


def main() -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (("--cancels", 200), ("--seed", 0)):
        parser.add_argument(name, type=int, default=usual)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="none is begun after so many")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hathi-cancels-") as folder, whole(Path(folder)) as site:
        print(json.dumps(cancels(site, given.cancels, given.seed, given.seconds), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
