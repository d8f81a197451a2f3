"""Faults of disks: state and logs of a host lie on a small one, which something else fills."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.acceptance.world import Host
from tests.crash.mounts import fill
from tests.night import own_mounts
from tests.night.asking import words
from tests.night.deployment import Deployment, in_folders
from tests.night.faults import Fault

SIZE = "2m"
NEARLY = 97.0
"""health.disk_percent of these hosts: this machine's own disk is none of theirs."""


@contextmanager
def on_small_disks(folder: Path) -> Iterator[Deployment]:
    """Bucket and lake are folders; state and logs of both hosts each have a disk of their own."""
    own_mounts.unshare()
    with ExitStack() as open_:
        for host in ("gateway", "box"):
            for name in ("state", "logs"):
                open_.enter_context(own_mounts.small_disk(folder / host / name, SIZE))
        deployment = open_.enter_context(in_folders(folder))
        deployment.tables["health"] = {"disk_percent": NEARLY}
        for host in ("gateway", "box"):
            deployment.configure(host)
        deployment.gateway.stop()
        deployment.gateway.start()
        yield deployment


def filled(host: Callable[[Deployment], Host]) -> Callable[[Deployment], None]:
    def inject(deployment: Deployment) -> None:
        for folder in (host(deployment).state, host(deployment).logs):
            fill(folder / "somebody.else")
        deployment.put_refs()

    return inject


def freed(host: Callable[[Deployment], Host]) -> Callable[[Deployment], None]:
    def mend(deployment: Deployment) -> None:
        for folder in (host(deployment).state, host(deployment).logs):
            (folder / "somebody.else").unlink()

    return mend


def gateway(deployment: Deployment) -> Host:
    return deployment.gateway


def box(deployment: Deployment) -> Host:
    return deployment.box


DISKS: Sequence[Fault] = (
    Fault("the gateway's disk is full", filled(gateway), freed(gateway),
          words("disk of", "% full"), words("delete what is not needed")),
    Fault("the box's disk is full", filled(box), freed(box),
          words("disk of", "full"), words("delete what is not needed"), host="box"),
)  # fmt: skip
