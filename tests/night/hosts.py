"""Faults of a host: its clock is wrong, its memory is at an end."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from tests.acceptance.world import Host
from tests.night.asking import words
from tests.night.deployment import Deployment
from tests.night.faults import Fault, box_as_before, nothing

AHEAD = 600.0
CLOCK = f"import time\n\n_real = time.time\ntime.time = lambda: _real() + {AHEAD}\n"
"""Where Python looks when a program starts: the clock of one host of this machine is wrong."""
LITTLE_MEMORY = 96 * 2**20
"""Bytes: enough for the commands that a run begins with, too little for its net."""


def clock_ahead(deployment: Deployment) -> None:
    folder = deployment.folder / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CLOCK)
    deployment.gateway.stop()
    deployment.environ["gateway"] = {"PYTHONPATH": str(folder)}
    deployment.gateway.start()
    deployment.put_refs()


def clock_set(deployment: Deployment) -> None:
    deployment.gateway.stop()
    del deployment.environ["gateway"]
    deployment.gateway.start()


def out_of_memory(deployment: Deployment) -> None:
    """The kernel kills the box's run where a memory group can be made; else a kill -9 stands for it."""
    deployment.put_refs()
    deployment.waits_for("compute")
    group = memory_group(deployment.folder.name)
    if group is None:
        with deployment.box_at_work():
            deployment.box.kill()
        return
    try:
        enter = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
        done = deployment.box.run(
            "sh", "-c", enter, str(group), "scripts/compute-cron.sh", str(deployment.box.config), timeout=300.0
        )
        deployment.mails.append(done.stdout)
    finally:
        group.rmdir()


def memory_group(name: str) -> Path | None:
    """A control group with little memory, of either version; None where none can be made."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        mount, limit = ("memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")
        group = Path("/sys/fs/cgroup") / mount / path.strip("/") / name
        try:
            group.mkdir()
            (group / limit).write_text(str(LITTLE_MEMORY))
        except OSError:
            if group.exists():
                group.rmdir()
            continue
        return group
    return None


def worker_killed(deployment: Deployment) -> None:
    """The box's workers are killed while the shop lets them wait, as the kernel does where memory is short."""
    deployment.configure("box", {"compute": {"workers": 2}})
    deployment.shop.mode = "hangs"
    deployment.put_refs()
    deployment.waits_for("compute")
    with deployment.box_at_work():
        for process in workers_of(deployment.box):
            os.kill(process, signal.SIGKILL)
        deployment.shop.mode = "well"


def workers_of(host: Host) -> list[int]:
    """The processes whose parent is the host's run."""
    run = int((host.state / "compute.lock").read_text().split()[1])
    return [int(one) for one in Path(f"/proc/{run}/task/{run}/children").read_text().split()]


CLOCKS: Sequence[Fault] = (
    Fault("the gateway's clock is wrong", clock_ahead, clock_set,
          words("clock is", "ahead of", "bucket"), words("chrony")),
)  # fmt: skip
"""Seen where a store has a clock of its own: folders have that of this machine."""
HOSTS: Sequence[Fault] = (
    Fault("the box's memory is at an end", out_of_memory, nothing,
          words("killed by SIGKILL"), words("if memory ran out, lower compute"), host="box", calls_box=False),
    Fault("a worker of the box is killed", worker_killed, box_as_before,
          words("worker", "SIGKILL"), words("memory"), host="box", calls_box=False),
)  # fmt: skip
