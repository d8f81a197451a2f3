"""The whole loop of a training (data, solver, log, metrics) beside its bare step, and what its snapshots cost.

    OMP_WAIT_POLICY=passive python -m tests.benchmarks.training_loop [lenet cifar caffenet] [--rounds 7]

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
from tests.benchmarks.training_step import BATCH, NETS
from tests.unit.training.databases import data_layer, datum, lmdb_of
from tests.unit.training.trained import inputs

ITERATIONS = {"lenet": 40, "cifar": 15, "caffenet": 1}
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


def timed(whole: Opened, rounds: int, each: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds of each turn: the bare step, the loop, and what of the loop went on waiting for data."""
    training, network = whole.training, whole.nets.train.network
    feeds = {name: values.copy() for name, values in training.take(0).items()}
    bare, loop, waited = [], [], []
    for at in range(rounds + 1):
        began, before = time.perf_counter(), training.waited
        training.step(each)
        middle = time.perf_counter()
        for _ in range(each):
            network.clear()
            network.backward(feeds)
            training.update()
        if at:  # the first turn warms up
            loop.append(middle - began)
            waited.append(training.waited - before)
            bare.append(time.perf_counter() - middle)
    return bare, loop, waited


def whole_loop(name: str, threads: int, rounds: int) -> None:
    with opened(name, threads) as whole:
        bare, loop, waited = timed(whole, rounds, ITERATIONS[name])
    ratios = [one / other for one, other in zip(loop, bare, strict=True)]
    each = median(bare) * 1e3 / ITERATIONS[name]
    print(
        f"{name:9} whole loop / bare step {median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f}; "
        f"bare {each:.1f} ms); waits for data {sum(waited) / sum(loop):.1%} of the loop",
        flush=True,
    )


def snapshots(threads: int, rounds: int) -> None:
    with opened("caffenet", threads, 64) as whole:
        training = whole.training
        training.step(1)
        blocked, took = [], []
        for _ in range(rounds):
            began = time.perf_counter()
            training.snapshot()
            blocked.append(time.perf_counter() - began)
            training.written()
            took.append(time.perf_counter() - began)
            training.step(1)
        size = sum(path(training.iteration - 1).stat().st_size for path in (whole.places.model, whole.places.state))
    print(
        f"caffenet  snapshot of {size / 2**20:,.0f} MiB: {median(took):.2f} s ({min(took):.2f} to {max(took):.2f}), "
        f"blocks the training {median(blocked):.3f} s ({min(blocked):.3f} to {max(blocked):.3f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=["lenet", "cifar"], help=f"of {', '.join(NETS)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--snapshots", action="store_true")
    options = parser.parse_args()
    for name in options.nets:
        whole_loop(name, options.threads, options.rounds)
    if options.snapshots:
        snapshots(options.threads, options.rounds)


if __name__ == "__main__":
    main()
