"""Caffe's solvers for programs, with pycaffe's names: `from hathi import training`.

    solver = training.load("solver.prototxt")
    solver.step(100)
    solver.net.params["conv1"][0].data[...]       # the live weights
    solver.test_nets[0].forward()["accuracy"]

A solver here takes the very steps of `hathi train`, and reads and writes the same files.  docs/pycaffe.md says for each
habit from pycaffe what stands for it.
"""

from __future__ import annotations

import contextlib
import operator
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from hathi.absent import MODULE, SOLVER, Absent, absent
from hathi.blobs import Blob
from hathi.live_nets import Fed, Net
from pipeline.codec.caffe_pb2 import SolverParameter
from pipeline.errors import ConfigError
from pipeline.training import job
from pipeline.training.assembly import PRECISIONS, How, examine
from pipeline.training.job import Opened, Out, Wanted
from pipeline.training.metrics import Metrics
from pipeline.training.requests import Action, Requests, heard
from pipeline.training.snapshot import ByPrefix, Position
from pipeline.training.solver import Flags
from pipeline.training.surroundings import Ending

__all__ = ["Blob", "Net", "Solver", "load"]


def __getattr__(name: str) -> Any:
    raise absent("hathi.training", name, MODULE)


def load(
    solver: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    threads: int = 0,
    exact: bool = False,
    as_caffe: bool = False,
    precision: str = PRECISIONS[0],
    check: bool = False,
    log: Callable[[str], None] | None = None,
    rows: Callable[[Mapping[str, Any]], None] | None = None,
) -> Solver:
    """Open a solver's .prototxt with its nets, data layers and first weights; nothing is trained yet.

    solver: its file; the paths in it are relative to the current folder, as Caffe's.
    weights: .caffemodel files, separated by commas, in place of the solver's `weights`.
    seed: in place of its random_seed.  threads: cores to compute with; 0: all, with `exact` one.
    exact: convolution in Caffe's order of sums.  as_caffe: gradients that Caffe gets wrong, as Caffe computes them.
    precision: "float32", or "bf16": convolutions and products are rounded (docs/training.md).
    check: read every example once, and refuse the damaged ones by key.
    log: takes each line of Caffe's log; default: none is printed.  rows: takes each display and test as a mapping:
        step, time, kind, values.
    Returns a `Solver`.  Raises `Error` for what Caffe refuses and what Hathi does not support, by name.

    >>> from hathi import training
    >>> solver = training.load("solver.prototxt")
    >>> solver.iter
    0
    >>> solver.step(10)
    >>> solver.iter, solver.net.params["ip"][0].data.shape
    (10, (2, 4))
    >>> for blob in solver.net.params["ip"]:
    ...     blob.data[...] = 0  # the live weights
    >>> float(solver.test_nets[0].forward()["loss"])  # two classes and no opinion: ln(2)
    0.6931471824645996
    >>> solver.snapshot()
    'tiny_iter_10.solverstate'
    >>> solver.restore("tiny_iter_10.solverstate")
    >>> solver.solve()
    >>> solver.iter
    20
    """
    given = None if weights is None else (os.fspath(weights),)
    wanted = Wanted(Path(solver), Flags(0, (), given, seed), How(threads, exact, as_caffe, _precision(precision)))
    out = Out(
        log or (lambda line: None),
        lambda read: Metrics(None, rows or (lambda row: None)),
        lambda read: ByPrefix(read.snapshots.prefix, read.snapshots.hdf5),
        lambda read, name: job.beside(read.snapshots.prefix, name),
        predictions=False,
    )
    requests = Requests(Action.STOP, Action.NONE, None, time.monotonic)
    opened = job.opened(wanted, out, requests)
    if check:
        examine(opened.nets, 2)
    opened.training.begin(Position())
    return Solver(opened, requests)


def _precision(name: str) -> str:
    if name not in PRECISIONS:
        raise ConfigError(f"there is no precision '{name}'", "", f"give one of: {', '.join(PRECISIONS)}")
    return name


class Param:
    """The fields of a solver's text, with its net where that stands in it.  They are changed in the file."""

    __slots__ = ("_text",)

    def __init__(self, text: SolverParameter) -> None:
        object.__setattr__(self, "_text", text)

    def __getattr__(self, name: str) -> Any:
        if name not in SolverParameter.DESCRIPTOR.fields_by_name:
            raise AttributeError(f"a solver has no field '{name}'")
        return getattr(self._text, name)

    def __setattr__(self, name: str, value: object) -> None:
        hint = f"change {name} in the solver's file, and open it anew; solver.restore(STATE) goes on from a snapshot"
        raise Absent(f"solver.param.{name} cannot be set", "the training was made with the file's fields", hint)

    def __repr__(self) -> str:
        return str(self._text)


class Solver:
    """A solver between two steps.  net: the one that learns.  test_nets: those that test it, over the same weights.

    `load` opens one.  It holds threads and files until `close`; a `with` block closes it.
    """

    def __init__(self, opened: Opened, requests: Requests) -> None:
        self._opened, self._training, self._requests = opened, opened.training, requests
        self._closed = False
        self.net, *tests = map(self._net, range(len(opened.nets.all())))
        self.test_nets: list[Net] = tests

    def _net(self, number: int) -> Net:
        live, training = self._opened.nets.all()[number], self._training
        share = live.network.share if number else training.share
        fed = Fed(lambda layers: training.take(number, layers), lambda layers: training.drawn(number, layers))
        return Net(live, fed, share, trains=number == 0)

    def __getattr__(self, name: str) -> Any:
        raise absent("a solver", name, SOLVER)

    @property
    def iter(self) -> int:
        """The updates that were made."""
        return self._training.iteration

    @property
    def max_iter(self) -> int:
        """The iteration at which `solve` ends."""
        return self._opened.read.max_iter

    @property
    def param(self) -> Param:
        """The fields of the solver's file, to be read: `solver.param.max_iter`, `.base_lr`, `.display`, ..."""
        return Param(self._opened.read.text)

    @property
    def lr(self) -> float:
        """The rate of the next update; with lr_policy multistep, asking moves the step when one is due, as in Caffe."""
        return self._training.lr

    def step(self, iterations: int) -> None:
        """So many iterations, with the tests, displays and snapshots that fall due.

        The window of average_loss begins anew with each call.  Raises `Error` where a loss or an update is not finite,
        and KeyboardInterrupt after the iteration in which Ctrl-C came: `step` goes on from there.
        """
        if operator.index(iterations) < 0:
            raise ConfigError(f"step({iterations}) has no meaning", "", "give the number of iterations, 0 or more")
        self._refuse_closed()
        with self._interruptible():
            asked = self._training.step(iterations)
        if asked is Action.STOP:
            raise KeyboardInterrupt

    def solve(self, state: str | os.PathLike[str] | None = None) -> None:
        """Trains up to max_iter, from a .solverstate if one is given, and ends as `caffe train` does.

        Raises as `step`; Ctrl-C leaves a snapshot.
        """
        self._refuse_closed()
        if state is not None:
            self.restore(state)
        with self._interruptible():
            ended = self._training.solve()
        if ended is Ending.EARLY:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C counts at the end of an iteration.  Python hears signals in its main thread alone."""
        if threading.current_thread() is threading.main_thread():
            with heard(self._requests, [signal.SIGINT]):
                yield
        else:
            yield

    def apply_update(self) -> None:
        """One update from the gradients that are there: rate, momentum, decay, clipping; `iter` counts it."""
        self._training.update()

    def snapshot(self) -> str:
        """Writes the .caffemodel and the .solverstate of now under snapshot_prefix; returns the state's path."""
        self._training.save()
        return str(self._opened.places.state(self.iter))

    def restore(self, state: str | os.PathLike[str]) -> None:
        """Goes on from a .solverstate: to the bit from one of Hathi's; after Caffe's, data and draws begin anew.

        Raises `Error` for one of another solver or another net.
        """
        self._opened.restore(Path(state))

    def add_callback(self, on_start: Callable[[], None], on_gradients_ready: Callable[[], None]) -> None:
        """Calls `on_start` as each iteration starts, and `on_gradients_ready` before its update."""
        self._training.callbacks.append((on_start, on_gradients_ready))

    def share_weights(self, net: Net) -> None:
        """Gives this solver's learned blobs to a net of another solver, as `net.share_with(solver.net)`."""
        net.share_with(self.net)

    def close(self) -> None:
        """Ends its threads and closes its data."""
        self._closed = True
        self._opened.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            hint = "open it anew with training.load(FILE); solver.restore(STATE) goes on from a snapshot"
            raise ConfigError("the solver is closed", "its data and threads are gone; its weights can be read", hint)

    def __enter__(self) -> Solver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
