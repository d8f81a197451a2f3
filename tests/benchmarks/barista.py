"""What a barista costs beside the computing: a round trip, and a gradient against the same pass in one process.

    .venv/bin/python -m tests.benchmarks.barista [--rounds 15] [--threads 1]

A round trip is a request without work, weights of the version that is there, and its answer.  Two processes that only
send a byte to and fro by the same kind of socket are measured in turns with it: the floor of this machine at this load.
Both are on one core, and on two: to wake a core that sleeps costs a virtual machine more than all the rest.
A gradient is measured in turns, too: `customer.gradient(number=)` on data that lie in the slot, and in one process the
pass with the copy of its gradients that a program takes; BatchNorm's sums are kept apart in both.  The line says what
is left when one is taken from the other.  A process that has slept computes slower for a while: most of it is that.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hathi import barista
from pipeline.training.assembly import labels_of
from pipeline.training.statistics import apart
from tests.unit.barista.inputs import batch
from tests.unit.barista.served import FED, LAYERS, Single, solver_in

REQUESTS = 2000
GOLDEN = Path(__file__).parents[1] / "golden" / "training"


def timed(work: Callable[[], object], times: int) -> float:
    """Microseconds of one call, as the mean of so many."""
    begin = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begin) / times * 1e6


def used(pid: int) -> float:
    """Microseconds of the processor that a process has had, to this moment (Linux's clock of another process)."""
    return time.clock_gettime(~pid << 3 | 2) * 1e6


def echo() -> tuple[socket.socket, int]:
    """A process that sends back what it hears, by the same kind of socket."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if not child:
        mine.close()
        while said := theirs.recv(64):
            theirs.send(said)
        os._exit(0)
    theirs.close()
    return mine, child


def trips(customer: barista.Customer, rounds: int) -> None:
    other, child = echo()

    def bare() -> None:
        other.send(b"?")
        other.recv(64)

    pid, own = customer.about()["pid"], os.getpid()
    cores = sorted(os.sched_getaffinity(0))
    for name, far in (("both on one core", cores[0]), ("each on a core", cores[-1])):
        os.sched_setaffinity(own, {cores[0]})
        for process in (child, pid):
            os.sched_setaffinity(process, {far})
        found, floor, processor = [], [], []
        for _ in range(rounds):
            before = used(pid) + used(own)
            found.append(timed(lambda: customer.weights(customer.version), REQUESTS))
            processor.append((used(pid) + used(own) - before) / REQUESTS)
            floor.append(timed(bare, REQUESTS))
        print(f"round trip, {name}: {statistics.median(found):.1f} us (least {min(found):.1f}), of the "
              f"processors, both sides: {statistics.median(processor):.1f} us (least {min(processor):.1f}); "
              f"two processes and a byte: {statistics.median(floor):.1f} us (least {min(floor):.1f})")  # fmt: skip
    for process in (own, pid):
        os.sched_setaffinity(process, set(cores))
    other.close()
    os.waitpid(child, 0)


def gradients(name: str, solver: Path, data: dict[str, np.ndarray], rounds: int, threads: int) -> None:
    alone = Single(solver, threads)
    copies = {name: np.empty(one.shape, np.float32) for name, one in zip(alone.names, alone.net.learned, strict=True)}

    def single(number: int) -> None:
        alone.net.clear()
        apart(alone.net, lambda: alone.net.backward(alone.feeds(data, number)))
        for name, one in zip(alone.names, alone.net.learned, strict=True):
            alone.net.array(alone.net.gradient_tensor(one.slot), into=copies[name])

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.interface"
        with barista.start(solver, file, threads=threads) as served, barista.Customer(served.interface) as customer:
            for top, one in data.items():
                customer.data[top][...] = one
            there, here, costs, pid = [], [], [0.0, 0.0], customer.about()["pid"]
            for number in range(rounds * 20):
                before = used(pid) + used(os.getpid())
                there.append(timed(lambda number=number: customer.gradient(number=number), 1))  # type: ignore[misc]
                between = used(pid) + used(os.getpid())
                here.append(timed(lambda number=number: single(number), 1))  # type: ignore[misc]
                costs = [costs[0] + between - before, costs[1] + used(pid) + used(os.getpid()) - between]
            costs = [one / len(there) for one in costs]
            size = sum(one.nbytes for one in customer.gradients.values())
    beside = [one - other for one, other in zip(there, here, strict=True)]
    print(f"{name}: {statistics.median(there):.0f} us by a barista, {statistics.median(here):.0f} us in one process: "
          f"{statistics.median(beside):+.0f} us; of the processors {costs[0]:.0f} and {costs[1]:.0f} us; "
          f"gradients of {size:,} bytes")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as where:
        small = solver_in(Path(where) / "small", FED + LAYERS)
        with (
            barista.start(small, Path(where) / "x.interface", threads=wanted.threads) as served,
            barista.Customer(served.interface) as customer,
        ):
            trips(customer, wanted.rounds)
        gradients("a small net", small, batch(0), wanted.rounds, wanted.threads)
        text = (GOLDEN / "lenet_sgd_inv.train_val.prototxt").read_text()
        lenet = solver_in(
            Path(where) / "lenet",
            text,
            (GOLDEN / "lenet_sgd_inv.solver.prototxt")
            .read_text()
            .replace("lenet_sgd_inv.train_val.prototxt", "net.prototxt"),
        )
        alone = Single(lenet, wanted.threads)
        known, chance = labels_of(alone.nets.train.graph), np.random.default_rng(0)
        data = {
            top: (chance.integers(0, known[top].classes, shape) if top in known else chance.random(shape)).astype(
                np.float32
            )
            for top, shape in alone.net.inputs.items()
        }
        gradients("LeNet", lenet, data, wanted.rounds, wanted.threads)


if __name__ == "__main__":
    main()
