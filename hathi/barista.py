"""A net in memory that many processes share: `from hathi import barista`.

    with barista.start("solver.prototxt") as served:      # one process holds the net
        with barista.Customer(served.interface) as customer:   # in any other process of this host
            answer = customer.gradient({"data": images, "label": labels})
            customer.gradients["conv1/0"]                 # a view of shared memory
            customer.update()

A customer needs NumPy and no engine.  docs/barista.md has the whole story, and what stands for SparkCaffe's names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pipeline.barista import executor, starting
from pipeline.barista.customer import Answer, Customer, Updated
from pipeline.barista.executor import Job
from pipeline.barista.starting import IDLE_SECONDS, SLOTS, Order
from pipeline.training import tree

__all__ = ["Answer", "Barista", "Customer", "Job", "Parts", "Updated", "job", "joined", "part", "start"]

Parts = dict[range, list[NDArray[np.float32]]]
"""Sums of gradients by the shards of which they are the sums."""
_END_SECONDS = 60.0


def start(
    solver: str | os.PathLike[str],
    interface: str | os.PathLike[str] | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    threads: int = 0,
    exact: bool = False,
    as_caffe: bool = False,
    slots: int = SLOTS,
    idle: float = IDLE_SECONDS,
    config: str | os.PathLike[str] | None = None,
    owned: bool = True,
) -> Barista:
    """Start a barista, or find the one that runs there, and return when it takes customers.

    solver: its .prototxt; the paths in it are relative to the current folder, as Caffe's.
    interface: the file that says where the barista is; default: the solver's own, in a folder of the user's. Whoever
        starts one there first begins it; all others get the same one.
    weights: .caffemodel files, separated by commas.  seed: in place of the solver's random_seed.
    threads: cores to compute with; 0: all, with `exact` one.  exact: convolution in Caffe's order of sums.
    as_caffe: gradients that Caffe gets wrong, as Caffe computes them.
    slots: customers at once.  idle: seconds without a customer after which it ends; 0: never.
    config: a configuration: ESTOP of its state folder ends the barista.
    owned: a barista that this call begins ends with this process, however that ends.
    Raises `Error` for what Caffe refuses, and where a barista of another solver runs there.

    >>> import numpy as np
    >>> from hathi import barista
    >>> with barista.start("solver.prototxt") as served, barista.Customer(served.interface) as customer:
    ...     answer = customer.gradient({"data": np.ones((6, 4)), "label": np.zeros(6)})
    ...     list(customer.gradients), answer.version, round(answer.loss, 3)
    ...     updated = customer.update()
    ...     customer.forward(rows=2, phase="TRAIN").version, updated.iteration
    (['ip/0', 'ip/1'], 0, 0.693)
    (1, 1)
    """
    order = Order(
        os.fspath(solver), os.fspath(interface or ""), () if weights is None else (os.fspath(weights),), seed, threads,
        exact, as_caffe, slots, idle, os.fspath(config or ""), owned,
    )  # fmt: skip
    if not owned:
        return Barista(starting.start(order), None)
    hear, hold = os.pipe()
    try:
        found = starting.start(order, hear)
    except BaseException:
        os.close(hold)
        raise
    finally:
        os.close(hear)
    if found.fresh:
        return Barista(found, hold)
    os.close(hold)
    return Barista(found, None)


def job(
    solver: str | os.PathLike[str],
    *,
    name: str = "",
    seed: int | None = None,
    threads: int = 1,
    exact: bool = False,
    as_caffe: bool = False,
    slots: int = SLOTS,
    idle: float = IDLE_SECONDS,
    config: str | os.PathLike[str] | None = None,
) -> Job:
    """What the tasks of a Spark job need to know of a solver: the driver makes it, and it travels with each task.

    In a task `job.customer()` is a customer of the barista of that executor.  The first task begins it, and it ends
    with the executor, after `idle` seconds without a customer, or with ESTOP of `config`, a file on executors' hosts.
    It has no weights that count, their version is -1, until a task gives it some: `customer.weights(version, values)`.
    solver: its .prototxt.  It travels as text with its nets in it; what its data layers read must be on each host.
    name: jobs of one name share their baristas; default: a new one.  threads: cores of each barista; 0: all.
    seed, exact, as_caffe, slots: as of `start`.
    Raises `Error` for what Caffe refuses.

    >>> import numpy as np
    >>> from hathi import barista
    >>> job = barista.job("solver.prototxt")
    >>> with job.customer() as customer:
    ...     before = customer.version
    ...     given = customer.weights(7, {name: np.ones(one.shape) for name, one in customer.given.items()})
    ...     answer = customer.gradient({"data": np.ones((6, 4)), "label": np.zeros(6)}, version=7)
    ...     before, given, answer.version, round(answer.loss, 3)
    (-1, True, 7, 0.693)
    """
    found = executor.job(Path(solver), name, seed)
    return replace(
        found, threads=threads, exact=exact, as_caffe=as_caffe, slots=slots, idle=idle, config=os.fspath(config or "")
    )


def part(shard: int, gradients: Mapping[str, NDArray[np.float32]]) -> Parts:
    """The gradients of one shard, copied out of the customer's slot, as a part of a sum: what a task returns."""
    return {range(shard, shard + 1): [one.copy() for one in gradients.values()]}


def joined(shards: int, some: Parts, others: Parts) -> Parts:
    """What two tasks returned, summed as far as they are neighbours in one binary tree over `shards` of them.

    With all shards there remains `[range(shards)]`.  Its bits do not depend on which parts met first, nor where, so
    that `treeReduce` may join them in any order.  The arrays of both are given away.

    >>> import numpy as np
    >>> from hathi import barista
    >>> one, two, three = (barista.part(at, {"ip/0": np.full(2, at, np.float32)}) for at in range(3))
    >>> barista.joined(3, barista.joined(3, three, one), two)
    {range(0, 3): [array([3., 3.], dtype=float32)]}
    """
    parts: MutableMapping[range, tree.Arrays] = {**some, **others}
    tree.join(shards, parts)
    return {shards_: list(arrays) for shards_, arrays in parts.items()}


class Barista:
    """A barista that runs.  interface: its file.  pid: its process.  fresh: this process has begun it.

    warnings: what its beginning had to say.  A `with` block stops it at its end if this process has begun it.
    """

    def __init__(self, found: starting.Started, hold: int | None) -> None:
        self.interface = str(found.interface)
        self.pid, self.fresh, self.warnings = found.pid, found.fresh, found.warnings
        self._hold = hold  # no finaliser closes it: the barista lives as long as this process, or until `stop`

    def stop(self) -> None:
        """Ends it, for all its customers.  Raises `Error` where it computes for a minute yet."""
        if Path(self.interface).exists():
            starting.stop(Path(self.interface), _END_SECONDS)
        if self._hold is not None:
            os.close(self._hold)
            self._hold = None

    def __enter__(self) -> Barista:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.fresh:
            self.stop()
