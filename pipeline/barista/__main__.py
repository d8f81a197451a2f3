"""`python -m pipeline.barista ORDER`: the barista's own process.  Nobody types this; `barista.starting` begins it.

Its first line says whether it is ready, why it failed, or that another one has the lock.  It ends by `stop`, SIGTERM,
ESTOP, for want of customers, or with its owner: at the end of its standard input or of its executor, whatever it
computes then.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.amounts import counted
from pipeline.barista import interface, memory, shared_net
from pipeline.barista.daemon import LOOK_SECONDS, Around, Daemon
from pipeline.barista.interface import Interface
from pipeline.barista.nets import TEST, TRAIN, NetsByRows
from pipeline.barista.shared_net import SharedNet
from pipeline.barista.starting import Order
from pipeline.clock import Clock
from pipeline.errors import PipelineError
from pipeline.process import logs
from pipeline.process.forks import leave
from pipeline.process.host import start_of
from pipeline.process.life import leave_no_core
from pipeline.process.lock import Held, leave_locks, locked, refuse_estop
from pipeline.process.stop import Stop, drained, signals
from pipeline.process.streams import with_standard_streams
from pipeline.settings import Logs, Settings, load
from pipeline.times import to_the_second
from pipeline.training import solver
from pipeline.training.assembly import How, assemble
from pipeline.training.draws.draws import OurDraws, draws
from pipeline.training.engine.starting import start as start_engine
from pipeline.training.job import OWN_SEED, is_news
from pipeline.training.out_of_memory import enough_memory
from pipeline.training.solver import Flags

PROGRAM = "barista"


def main(words: list[str]) -> int:
    """Returns the exit code: 0 where it ended as it should."""
    body = json.loads(words[0])
    order = Order(**{**body, "weights": tuple(body["weights"])})
    file = Path(order.interface)
    leave_no_core()
    try:
        with _until_the_owner_ends(order, file), locked(file.parent, file.name):
            try:
                _serve(order, file)
            finally:
                interface.remove(file)
    except Held as error:
        _tell(held=error.detail)
    except PipelineError as error:
        _tell(failed=[error.message, error.detail, error.hint, error.exit_code])
        return error.exit_code
    return 0


@dataclass(frozen=True)
class _Made:
    """The net in its memory.  handle: of the memory.  text: bytes of its layout.  about: what is said of it."""

    net: SharedNet
    handle: int
    text: int
    about: dict[str, Any]


def _serve(order: Order, file: Path) -> None:
    settings = load(Path(order.config), os.environ) if order.config else None
    if settings is not None:
        refuse_estop(Path(settings.state))
    with contextlib.closing(interface.listening(file)) as listening:
        _take_customers(order, file, settings, listening)


def _take_customers(order: Order, file: Path, settings: Settings | None, listening: socket.socket) -> None:
    """Who connects meanwhile waits until the net is there."""
    warnings: list[str] = []
    with enough_memory():
        made = _made(order, warnings)
    log = logs.log(PROGRAM)
    path = logs.open_log(PROGRAM, settings.logs if settings else Logs(folder=str(interface.folder())), echo=False)
    clock = Clock()
    stop = Stop(Path(settings.state) if settings else None, clock, log.info)
    said = Interface(order.solver, os.getpid(), to_the_second(time.time()), __version__)
    found = partial(interface.put_back, file, said)
    around = Around(clock.monotonic, stop, lambda: stop.why, order.idle, found, log.warning, made.about)
    with (
        drained(stop, log.warning, lambda: _leave(file)),
        signals(stop, lambda: _leave(file)),
    ):
        interface.write(file, said)
        interface.listed(file)
        log.info("started: %s at %s, %s", order.solver, file, counted(order.slots, "slot"))
        _tell(ready=warnings)
        _speak_to(path)
        why = Daemon(listening, made.net, order.slots, (made.handle, made.text), around).serve()
        log.info("ended: %s: %s", file, why)


def _made(order: Order, warnings: list[str]) -> _Made:
    read = solver.read(Path(order.solver), Flags(weights=order.weights or None, seed=order.seed))
    if read.gpu:
        warnings.append("the solver says solver_mode: GPU; the barista computes on the CPU")
    threads, heard = start_engine(order.threads or int(order.exact)), list[str]()
    how = How(threads, order.exact, order.as_caffe, gpu="none")
    assembled = assemble(read, draws(read.seed, OWN_SEED), how, lambda says: None, heard.append)
    assembled.close()  # its data layers have said what shapes the net takes; nobody reads their files
    warnings += dict.fromkeys(filter(is_news, heard))
    nets = NetsByRows(read, how, assembled)
    plan = shared_net.planned(read, nets, order.slots)
    handle = memory.made(plan.size)
    own = OurDraws(OWN_SEED if read.seed < 0 else read.seed)
    net = SharedNet(read, nets, own, (plan, memory.whole(handle, plan)), order.first)
    about = {
        "order": order.same(), "hathi": __version__, "pid": os.getpid(), "rows": nets.rows, "threads": threads,
        "phases": [TRAIN, *([TEST] if nets.has_test else [])],
        "labels": {top: one.classes for top, one in nets.labels().items()},
    }  # fmt: skip
    return _Made(net, handle, len(plan.as_json()), about)


def _leave(file: Path) -> None:
    """The last thing of a process that ends at once."""
    interface.remove(file)
    leave_locks()


@contextlib.contextmanager
def _until_the_owner_ends(order: Order, file: Path) -> Iterator[None]:
    """Ends this process at the end of its standard input, or with its executor, should that come."""

    def heard() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        end()

    def watched() -> None:
        """By looking: a descriptor of another process (pidfd) is not to be had on each kernel that clusters run."""
        while start_of(order.executor) == order.born:
            if done.wait(LOOK_SECONDS):
                return
        end()

    def end() -> None:
        if not done.is_set():
            _leave(file)
            os._exit(0)

    done = threading.Event()
    if order.owned:
        threading.Thread(target=heard, name="owner", daemon=True).start()
    if order.executor:
        threading.Thread(target=watched, name="executor", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _tell(**words: Any) -> None:
    """One line to whoever began this process, who may be gone."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(words).encode() + b"\n")


def _speak_to(path: Path) -> None:
    """What libraries print from now on goes to the log's file: nobody else listens any more."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


if __name__ == "__main__":
    with_standard_streams()
    leave(main(sys.argv[1:]))
