"""The whole loop of a training (data, solver, log, metrics) beside its bare step, and what its snapshots cost.

    OMP_WAIT_POLICY=passive python -m tests.benchmarks.training_loop [lenet cifar caffenet] [--rounds 9]

The bare step is forward, backward and update of the same nets on one batch that is there already.  The two take turns.
CaffeNet's images are JPEGs of 256x256 in an LMDB, cropped to 227, mirrored, less the mean: the part of the time in
which the loop waits for them is printed.  --snapshots measures CaffeNet's: until it is on the disk, and how long the
training stands still for it.  It needs lmdb.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from google.protobuf import text_format

from pipeline.training import job
from pipeline.training.assembly import How
from pipeline.training.job import Opened, Wanted
from pipeline.training.requests import Action, Requests
from pipeline.training.resuming import Beginning, go_on
from tests.benchmarks.training_data import MEAN, jpeg, pictures
from tests.benchmarks.training_step import BATCH, NETS, rounds_of
from tests.unit.training.databases import data_layer, datum, lmdb_of
from tests.unit.training.trained import inputs

ITERATIONS = {"lenet": 20, "cifar": 20, "caffenet": 1}
"""Of one turn: the loop displays and measures every 20th."""
SOLVER = """
net: "net.prototxt" base_lr: 0.0001 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005 max_iter: 1000000
display: 20 average_loss: 20 snapshot_prefix: "s" random_seed: 1 snapshot_after_train: false
"""


def database(name: str, folder: Path, images: int) -> Path:
    shape = NETS[name][2]
    if name == "caffenet":
        return lmdb_of(folder / "db", [jpeg(image, at % 10) for at, image in enumerate(pictures(images))])
    values = np.random.default_rng(1).integers(0, 256, (images, *shape), np.uint8)
    return lmdb_of(folder / "db", [datum(image, at % 10) for at, image in enumerate(values)])


def solver(name: str, folder: Path, images: int) -> Path:
    """The files of a training: a net that reads a database, and its solver."""
    text, _, shape, _ = NETS[name]
    transform = {"mirror": True, "crop_size": 227, "mean_value": MEAN} if name == "caffenet" else {"scale": 1 / 256}
    data = text_format.MessageToString(data_layer(str(database(name, folder, images)), BATCH, transform))
    body = text().removeprefix(inputs(data=(BATCH, *shape), label=(BATCH,)))
    (folder / "net.prototxt").write_text(f"layer {{ {data} }}\n{body}")
    path = folder / "solver.prototxt"
    path.write_text(SOLVER.replace('"net.', f'"{folder}/net.').replace('"s"', f'"{folder}/s"'))
    return path


@contextmanager
def opened(name: str, threads: int, images: int = 512) -> Iterator[Opened]:
    """A training that stands before its first iteration, as `hathi train` opens it."""
    with tempfile.TemporaryDirectory() as folder:
        requests = Requests(Action.STOP, Action.SNAPSHOT, None, time.monotonic)
        wanted = Wanted(solver(name, Path(folder), images), how=How(threads))
        shown = job.by_prefix(lambda line: None, lambda read, shown: None, lambda row: None)
        whole = job.opened(wanted, shown, requests)
        try:
            go_on(whole.training, whole.nets, whole.read, Beginning(None, None, whole.places), whole.log)
            whole.metrics.begin(0)
            yield whole
        finally:
            whole.close()


@dataclass(frozen=True)
class Turns:
    """Of each turn: wall seconds, and CPU seconds of all threads, of the bare steps and of the loop.

    waited: seconds of the loop that went on waiting for data.
    """

    bare: list[tuple[float, float]]
    loop: list[tuple[float, float]]
    waited: list[float]


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float]) -> tuple[float, float]:
    now = clocks()
    return now[0] - began[0], now[1] - began[1]


def timed(whole: Opened, rounds: int, each: int) -> Turns:
    training, network = whole.training, whole.nets.train.network
    feeds = {name: values.copy() for name, values in training.take(0).items()}
    found = Turns([], [], [])
    for at in range(rounds + 1):
        began, before = clocks(), training.waited
        training.step(each)
        took = since(began)
        waited, began = training.waited - before, clocks()
        for _ in range(each):
            network.clear()
            network.backward(feeds)
            training.update()
        if at:  # the first turn warms up
            found.loop.append(took)
            found.waited.append(waited)
            found.bare.append(since(began))
    return found


def whole_loop(name: str, threads: int, rounds: int) -> None:
    """Prints what data, solver and log cost on top of the bare step, and the share of waiting for data."""
    with opened(name, threads) as whole:
        turns = timed(whole, rounds_of(name, rounds), ITERATIONS[name])
    wall, cpu = ([one[at] / other[at] for one, other in zip(turns.loop, turns.bare, strict=True)] for at in (0, 1))
    waits = sum(turns.waited) / sum(one for one, _ in turns.loop)
    print(
        f"{name:9} loop: {median(wall):.3f} of the bare step in wall time, {median(cpu):.3f} in CPU time"
        f"; waits for data {waits:.1%} of the time",
        flush=True,
    )


def snapshots(threads: int, rounds: int) -> None:
    """Prints how long a snapshot of CaffeNet takes, and how long the training stands still for it."""
    with opened("caffenet", threads, BATCH) as whole:
        training = whole.training
        training.step(1)
        blocked, took = [], []
        for _ in range(rounds):
            training.written()
            began, cpu = time.perf_counter(), time.process_time()
            training.snapshot()
            blocked.append((time.perf_counter() - began, time.process_time() - cpu))
            training.written()
            took.append((time.perf_counter() - began, time.process_time() - cpu))
        size = sum(path(training.iteration).stat().st_size for path in (whole.places.model, whole.places.state))
    written, stood = (tuple(median(one) for one in zip(*times, strict=True)) for times in (took, blocked))
    print(
        f"caffenet  snapshot: {written[0]:.2f} s until its {size / 2**20:,.0f} MiB are on the disk ({written[1]:.2f} s "
        f"of CPU); the training stands still for {stood[0]:.3f} s ({stood[1]:.3f} s of CPU)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=["lenet", "cifar"], help=f"of {', '.join(NETS)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--snapshots", action="store_true")
    options = parser.parse_args()
    for name in options.nets:
        whole_loop(name, options.threads, options.rounds)
    if options.snapshots:
        snapshots(options.threads, 3)


if __name__ == "__main__":
    main()
