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
from pathlib import Path
from types import TracebackType

from pipeline.barista import starting
from pipeline.barista.customer import Answer, Customer, Updated
from pipeline.barista.starting import IDLE_SECONDS, SLOTS, Order

__all__ = ["Answer", "Barista", "Customer", "Updated", "start"]

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
