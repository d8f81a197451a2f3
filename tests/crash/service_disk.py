"""Run inside a mount namespace of its own: a worker of the service whose disk is full, and then has room again.

`python -m tests.crash.service_disk FOLDER`; prints a JSON object: by case how the work ended, and what the worker said.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.clock import Clock
from pipeline.service.work import room, training, worker
from pipeline.service.work.attempt import Hands
from tests.crash.mounts import fill
from tests.servers import tiny_training as tiny
from tests.servers.databases import sites
from tests.servers.service import Person, Stand, standing

Case = dict[str, Any]


class Place:
    """A worker of two megabytes of disk, in this process."""

    def __init__(self, stand: Stand, disk: Path) -> None:
        self.stand, self.disk = stand, disk
        self.ann: Person = stand.person("ayes", "ann")
        self.solver = self.ann.solver(tiny.solver(300, 50), tiny.NET)
        self.said: list[str] = []
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)

    def works(self, inputs: dict[str, str], until: int) -> Case:
        """A worker does a job until it has ended, or rested so often."""
        job, rests = self.ann.job(solver_id=self.solver, inputs=inputs, seed=1), 0
        self.said = []

        def over() -> bool:
            return self.shown(job)["finished_at"] is not None

        def say(text: str) -> None:
            nonlocal rests
            self.said.append(text)
            rests += "is full" in text

        def stopping() -> bool:
            return over() or rests >= until

        async def run() -> None:
            hands = Hands(self.stand.site.open(), self.stand.store, Clock(), self.disk / "work", stopping, say)
            await worker.work(hands)

        self.stand.site.run(run())
        return {"job": self.shown(job), "said": self.said, "rests": rests}

    def shown(self, job: str) -> Case:
        return dict(self.ann.got("GET", f"/v1/training-jobs/{job}"))

    def inputs(self, more: int = 0) -> dict[str, str]:
        """more: bytes of a file that is only there to be large."""
        found = {"train": self.ann.datafile(tiny.rows() + b"\0" * more), "test": self.ann.datafile(tiny.rows(1))}
        return found


def main(root: Path) -> None:
    room.REST_SECONDS = 1.0
    setattr(worker, "Training", functools.partial(training.Training, module="tests.crash.small_trainer"))  # noqa: B010
    disk = root / "disk"
    disk.mkdir()
    told: dict[str, Case] = {}
    (site,) = sites("sqlite", root, None)
    with standing(site, root) as stand:
        place = Place(stand, disk)
        small = place.inputs()
        told["too large for the disk"] = place.works(place.inputs(3 * 2**20), 9)
        told["another job, afterwards"] = place.works(small, 9)
        fill(disk / "filler")
        told["no room at all"] = place.works(small, 1)
        (disk / "filler").unlink()
        told["room again"] = place.works(small, 9)
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
