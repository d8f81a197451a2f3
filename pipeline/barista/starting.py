"""Starts a barista, or finds the one that runs: whoever comes first begins it, and all others get the same one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.barista import interface
from pipeline.barista.messages import Ended, Refused, accepted, receive, send
from pipeline.clock import Clock
from pipeline.errors import PermanentError, PipelineError, TemporaryError
from pipeline.process.child import apart, python_of
from pipeline.process.host import start_of

SLOTS, IDLE_SECONDS = 16, 600.0
"""Customers at once; seconds without one after which it ends."""
WAIT_SECONDS = 300.0
"""So long another process's start is waited for."""
_LOOK_SECONDS = 0.05
_CLOCK = Clock()
_SAME = ("solver", "weights", "seed", "exact", "as_caffe")
"""What two that use one barista have to agree on."""


@dataclass(frozen=True)
class Order:
    """A barista that is wanted.

    solver: its file; the paths in it are relative to the current folder.  interface: the file that says where it is;
    "": the solver's own in the user's folder.  weights, seed: in place of the solver's.  threads: of the engine; 0:
    all cores, with `exact` one.  idle: seconds without a customer after which it ends; 0: never.  config: a
    configuration: ESTOP of its state folder ends it, its log folder has its log.
    """

    solver: str
    interface: str = ""
    weights: tuple[str, ...] = ()
    seed: int | None = None
    threads: int = 0
    exact: bool = False
    as_caffe: bool = False
    slots: int = SLOTS
    idle: float = IDLE_SECONDS
    config: str = ""
    owned: bool = False
    """It ends when its standard input does."""
    executor: int = 0
    born: str = ""
    """It ends with the process of this number that began then (`process.host.start_of`); 0: with none."""
    first: int = 0
    """The version of its first weights."""

    def settled(self) -> Order:
        """With whole paths."""
        solver = os.path.abspath(self.solver)
        file = os.path.abspath(self.interface) if self.interface else str(interface.default(Path(solver)))
        config = os.path.abspath(self.config) if self.config else ""
        return replace(self, solver=solver, interface=file, config=config)

    def same(self) -> dict[str, Any]:
        """What has to be alike for this order to be served by a barista that runs already."""
        return {name: list(value) if isinstance(value := getattr(self, name), tuple) else value for name in _SAME}


@dataclass(frozen=True)
class Started:
    """interface: its file.  pid: of its process.  fresh: it was begun by this call.  warnings: of its beginning."""

    interface: Path
    pid: int
    fresh: bool
    warnings: tuple[str, ...] = ()


def start(order: Order, owner: int | None = None, clock: Clock = _CLOCK) -> Started:
    """Returns once the barista takes customers.

    owner: a descriptor that becomes its standard input, for an order that is `owned`.  Raises what its beginning
    raised; PermanentError where one of another solver runs there; TemporaryError where another start takes too long.
    """
    order = order.settled()
    file = Path(order.interface)
    interface.prepared(file)
    ends = clock.monotonic() + WAIT_SECONDS
    while True:
        if interface.alive(file) is not None:
            found = _running(order, file)
            if found is not None:
                return found
        else:
            begun = _begin(order, owner)
            if begun is not None:
                return begun
        if clock.monotonic() > ends:
            raise TemporaryError(f"another start of the barista of {file} does not end", interface.alive(file) or "")
        clock.sleep(_LOOK_SECONDS)


def about(file: Path, seconds: float | None = None) -> dict[str, Any]:
    """What a running barista says of itself.  Raises as `interface.connected`, and TimeoutError."""
    with contextlib.closing(interface.connected(file, seconds)) as connection:
        send(connection, {"verb": "about"})
        return accepted(receive(connection))


def stop(file: Path, seconds: float, clock: Clock = _CLOCK) -> bool:
    """Asks a barista to end, and waits for it; whether it ran.  What a dead one left behind is removed.

    Raises ConfigError for a file that is none; TemporaryError where it computes for longer than `seconds`.
    """
    pid = interface.read(file).pid
    born = start_of(pid)
    if interface.alive(file) is None:
        interface.remove(file)
        return False
    with contextlib.suppress(Ended), contextlib.closing(interface.connected(file, seconds)) as connection:
        send(connection, {"verb": "stop"})
        with contextlib.suppress(TimeoutError):  # it is waited for below, by its lock
            accepted(receive(connection))
    ends = clock.monotonic() + seconds
    while interface.alive(file) is not None or (born and start_of(pid) == born):
        if clock.monotonic() > ends:
            says = f"the barista of {file} has not ended yet"
            raise TemporaryError(says, f"process {pid}", "it ends after what it computes")
        clock.sleep(_LOOK_SECONDS)
    return True


def _running(order: Order, file: Path) -> Started | None:
    """The barista that runs there; None: it is not ready, or ends just now."""
    try:
        found = about(file)
        pid = interface.read(file).pid
    except PipelineError:
        return None
    if found["order"] != order.same():
        other = {name: (found["order"].get(name), mine) for name, mine in order.same().items()}
        detail = "; ".join(
            f"{name}: {theirs} there, {mine} here" for name, (theirs, mine) in other.items() if theirs != mine
        )
        raise PermanentError(f"a barista of another training runs at {file}", detail,
                             "name another file with --interface, or stop that one")  # fmt: skip
    return Started(file, pid, False)


def _begin(order: Order, owner: int | None) -> Started | None:
    """Begins one; None: another process was quicker."""
    pid, hear = apart(python_of("pipeline.barista", json.dumps(asdict(order))), owner)
    try:
        with _killed_by_errors(pid), os.fdopen(hear, "rb") as said:
            words: dict[str, Any] = json.loads(said.readline() or b"{}")
    except ValueError as error:
        raise _wordless(pid) from error
    if "held" in words:
        return None
    if "failed" in words:
        raise Refused(*words["failed"])
    if "ready" not in words:
        raise _wordless(pid)
    return Started(Path(order.interface), pid, True, tuple(words["ready"]))


def _wordless(pid: int) -> PermanentError:
    return PermanentError("the barista ended before it was ready", f"process {pid}; what it said stands above",
                          "dmesg tells of a process that was killed for want of memory")  # fmt: skip


@contextlib.contextmanager
def _killed_by_errors(pid: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        raise
