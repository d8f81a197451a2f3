"""How fast workers of `hathi service start` come and go, and how much memory its processes have.

    python -m tests.benchmarks.service_scaling

Prints seconds from the start to the first answer, from the first queued import to three workers that work, from the
last import to no worker (idle_seconds is 3 here), from kill -9 of a worker to the next attempt at its work, and the
proportional memory (PSS) of the program with its API and of a worker.  Wall times: on free cores.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.servers.demand import until
from tests.servers.picture_training import archive
from tests.servers.started import Started

IDLE = 3
AT_ONCE = 3


def main() -> None:
    """Prints the figures."""
    with tempfile.TemporaryDirectory() as folder:
        started = Started(Path(folder))
        started.configure(
            f"[service.workers]\nlight_min = 0\nlight_max = {AT_ONCE}\n[service.scaling]\nidle_seconds = {IDLE}\n"
        )
        began = time.monotonic()
        started.begin()
        assert started.server is not None
        print(f"{time.monotonic() - began:.2f} s from the start to the first answer, migrations included")
        try:
            measured(started)
        finally:
            started.server.stop(60)


def measured(started: Started) -> None:
    ann = started.person()
    assert started.server is not None
    print(f"{pss(started.server.process.pid):.0f} MiB: the program with API and pool, before the first request")
    datafile = ann.datafile(archive(600))

    def load() -> dict[str, int]:
        return dict(ann.got("GET", "/v1/scaling")["kinds"]["light"])

    began = time.monotonic()
    names = [ann.got("POST", "/v1/datasets", {"name": f"d{n}", "datafile_id": datafile})["id"] for n in range(6)]
    print(f"{passed(lambda: load()['running'] == AT_ONCE, began):.2f} s from the first import to {AT_ONCE} that run")
    sizes = [pss(one) for one in started.workers("light")]
    print(f"{max(sizes):.0f} MiB: the largest of {len(sizes)} workers, its child apart")
    until(lambda: load()["queued"] + load()["running"] == 0, "all are imported", 600)
    began = time.monotonic()
    until(lambda: started.workers("light") == [], "no worker", 600)
    print(f"{time.monotonic() - began:.2f} s from the last import to no worker (idle_seconds is {IDLE})")
    assert all(ann.got("GET", f"/v1/datasets/{name}")["state"] == "succeeded" for name in names)
    work = ann.got("POST", "/v1/datasets", {"name": "killed", "datafile_id": datafile})["id"]
    for _ in range(3):
        epoch = started.row(work)["epoch"]
        until(lambda: started.row(work)["state"] == "running", "it runs", 600)
        (worker,) = started.workers("light")
        began, epoch = time.monotonic(), started.row(work)["epoch"]
        os.kill(worker, signal.SIGKILL)
        again = passed(lambda epoch=epoch: started.row(work)["epoch"] > epoch, began)  # type: ignore[misc]
        print(f"{again:.2f} s from kill -9 of its worker until an import runs again")
    print(f"{pss(started.server.process.pid):.0f} MiB: the program with API and pool, at the end")


def passed(ready: Callable[[], bool], began: float) -> float:
    """Seconds."""
    while not ready():
        time.sleep(0.02)
    return time.monotonic() - began


def pss(process: int) -> float:
    """Mebibytes of memory, what is shared counted in parts."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


if __name__ == "__main__":
    main()
