"""Real training on the tests' cluster: `hathi train --on replicas` of a tiny net, with snapshots in a shared folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tests.servers import tiny_training
from tests.servers.demand import free_port

ITERATIONS, SNAPSHOT = 160, 20
PATIENCE = "20"


def folder_of(folder: Path, iterations: int = ITERATIONS) -> Path:
    """Solver, net and data."""
    folder.mkdir(parents=True)
    (folder / "rows.h5").write_bytes(tiny_training.rows())
    for name in ("train", "test"):
        (folder / name).write_text("rows.h5\n")
    (folder / "net.prototxt").write_text(tiny_training.NET)
    text = tiny_training.solver(iterations, SNAPSHOT)
    (folder / "solver.prototxt").write_text(f'net: "net.prototxt"\nsnapshot_prefix: "s"\n{text}')
    return folder


def spec_of(folder: Path, replicas: int = 2, **more: Any) -> dict[str, Any]:
    """A job that trains there; more: fields of its spec."""
    command = ["hathi", "train", "solver.prototxt", "--on", "replicas", "--patience", PATIENCE]
    container = {"name": "trainer", "image": "trainer", "command": command, "workingDir": str(folder)}
    recovery = {"backoffSeconds": 1, "lostAfterSeconds": 5, **more.pop("recovery", {})}
    rendezvous = more.pop("rendezvous", {"backend": "service", "port": free_port()})
    template = {"spec": {"terminationGracePeriodSeconds": 20, "containers": [container]}}
    return {"replicas": replicas, "template": template, "recovery": recovery, "rendezvous": rendezvous, **more}


def weights(folder: Path, iterations: int = ITERATIONS) -> str:
    """The digest of the final weights."""
    return hashlib.sha256((folder / f"s_iter_{iterations}.caffemodel").read_bytes()).hexdigest()


def reached(folder: Path) -> int:
    """The iteration of the newest snapshot; 0: there is none."""
    return max((int(path.stem.rpartition("_")[2]) for path in folder.glob("s_iter_*.solverstate")), default=0)
