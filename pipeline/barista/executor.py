"""The barista of an executor: one for each executor and job, begun by the first task that needs it.

It lies in the executor's own scratch, so it is no other executor's; it ends with the executor's process, which is the
JVM above Spark's Python workers, whatever becomes of the worker that began it.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from pipeline import __version__
from pipeline.barista import interface, starting
from pipeline.barista.customer import Customer
from pipeline.barista.starting import IDLE_SECONDS, SLOTS, Order
from pipeline.errors import PermanentError
from pipeline.nets.caffe.writing import replacing
from pipeline.process.host import parents, program_of, same_version, start_of
from pipeline.process.scratch import of_a_worker

UNGIVEN = -1
"""The version of the weights before a task has given some."""
_JVM = "java"
_TRIES = 3
"""A barista that is found may end, idle, before its customer is there."""


@dataclass(frozen=True)
class Job:
    """What the tasks of one run share: it is made by the driver and travels with each task.

    name: of this run alone; two that have the same name share baristas.  solver: its text, with its nets in it.
    threads: cores of each barista; 0: all that it is given.  config: a file of the executor's hosts: ESTOP of its
    state folder ends the baristas.  version: the driver's.
    """

    name: str
    solver: str
    seed: int | None = None
    threads: int = 1
    exact: bool = False
    as_caffe: bool = False
    slots: int = SLOTS
    idle: float = IDLE_SECONDS
    config: str = ""
    version: str = __version__

    def customer(self, seconds: float | None = None) -> Customer:
        """In a task: a customer of this executor's barista, which the first task begins.

        Its weights are of version -1 until a task gives it some.  seconds: the longest wait for an answer; None: as
        long as the barista lives.
        Raises PermanentError where this executor has another version of Hathi, and as `starting.start` and `Customer`.
        """
        same_version(self.version)
        folder = of_a_worker("barista")
        text = folder / f"{self.name}.prototxt"
        if not text.exists():
            with replacing(text) as out:
                out.write(self.solver.encode())
        file = text.with_suffix(interface.SUFFIX)
        pid = executor_of(os.getpid())
        order = Order(
            str(text), str(file), (), self.seed, self.threads, self.exact, self.as_caffe, self.slots, self.idle,
            self.config, executor=pid, born=start_of(pid), first=UNGIVEN,
        )  # fmt: skip
        for left in reversed(range(_TRIES)):
            starting.start(order)
            try:
                return Customer(file, seconds=seconds)
            except PermanentError:
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")


def job(solver: Path, name: str = "", seed: int | None = None) -> Job:
    """On the driver: what tasks need to know of a solver.  name: "": a new one.

    Raises SolverError and NetError for what Caffe refuses.
    """
    from google.protobuf import text_format  # what reads nets is the driver's alone: a customer begins without it

    from pipeline.training import solver as solvers
    from pipeline.training.submission import whole

    solvers.read(solver, solvers.Flags(seed=seed))
    return Job(name or f"{solver.stem}-{secrets.token_hex(6)}", text_format.MessageToString(whole(solver)), seed)


def executor_of(pid: int) -> int:
    """The JVM above a Python worker; where there is none, the process itself."""
    return next((one for one in parents(pid) if program_of(one) == _JVM), pid)
