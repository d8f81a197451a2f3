"""Linear models: updates a second, what sharing costs, memory; beside scikit-learn where it is installed.

    .venv/bin/python -m tests.benchmarks.linear_models [--rows 804414] [--passes 10]
    .venv/bin/python -m tests.benchmarks.linear_models --dense FOLDER [--rows 30000] [--dim 4096] [--classes 12]

Sparse: a generated set of RCV1's shape, 47,236 coordinates.  All ways take turns, a pass of each; the figures are
medians of the ratios within a turn, and rates by the processor's time, which other programs disturb less.  A ratio says
something of two cores only where both were there: `on free cores` is the median of those turns.  --memory
FOLDER reads a file and goes over it 20 times in a process of its own.  Dense: Parquet in FOLDER, as it is delivered.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

COORDINATES, FILLED = 47_236, 76
ALONE = 0.9
"""So much of its cores a way had in a turn on free cores."""
MEMORY = """
import re, sys, threading, time
from pathlib import Path
from pipeline.training.descent import data
from pipeline.training.descent.descent import Wanted, train
from pipeline.training.descent.losses import Loss
from pipeline.training.descent.memory import Own

def held():  # this process's own memory, and files that exist in memory alone: nobody else makes any meanwhile
    texts = Path("/proc/self/status").read_text(), Path("/proc/meminfo").read_text()
    forms = r"RssAnon:\\s+(\\d+)", r"Shmem:\\s+(\\d+)"
    return 1024 * sum(int(re.search(form, text)[1]) for form, text in zip(forms, texts))

def once(path):
    with data.opened(data.Source(Path(path), Path(".")), Own()) as found:
        train(found.examples, Wanted(Loss.HINGE, 1e-5, workers=2))
        return sum(one.nbytes for one in found.examples.rows)

once(sys.argv[2])  # what is compiled and imported is no part of it
idle, most, done = held(), 0, False

def watch():
    global most
    while not done:
        most = max(most, held())
        time.sleep(0.005)

watching = threading.Thread(target=watch)
watching.start()
size = once(sys.argv[1])
done = True
watching.join()
print((most - idle) / size)
"""


def sparse(rows: int, passes: int) -> None:
    from pipeline.training.descent.comparing import AVERAGED, LOCK_FREE, LOCKED, SERIAL, ways
    from pipeline.training.descent.descent import Run, Wanted
    from pipeline.training.descent.losses import Loss
    from pipeline.training.descent.workers import Threads
    from tests.unit.training.sparse_sets import like_rcv1

    examples = like_rcv1(rows, COORDINATES, FILLED)
    print(f"{examples.count:,} examples, {len(examples.rows.value) / examples.count:.1f} coordinates each")
    chosen = {}
    for order in (False, True):
        named = ways(Wanted(Loss.HINGE, 1e-5, passes=passes, rate=0.5, workers=2, rows=order))
        for name in (SERIAL, LOCK_FREE, LOCKED, AVERAGED):
            chosen[f"{name}, {'random rows' if order else 'blocks'}"] = named[name]
    runs = {name: Run(examples, None, one, Threads(examples, one.workers)) for name, one in chosen.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(passes + 1):
        for name, run in runs.items():
            one = run.once(number + 1)
            if number:  # the first one compiles
                times[name].append((one.seconds, one.processor))
    print(f"load {os.getloadavg()[0]:.1f} of {len(os.sched_getaffinity(0))} cores")
    for name, taken in times.items():
        alone = times[f"{SERIAL}, {name.partition(', ')[2]}"]
        free = [before[0] / now[0] for before, now in zip(alone, taken, strict=True)
                if before[1] > ALONE * before[0] and now[1] > ALONE * now[0] * chosen[name].workers]  # fmt: skip
        said = f"on free cores x {statistics.median(free):.2f}" if free else "no turn on free cores"
        ratio = statistics.median(before[0] / now[0] for before, now in zip(alone, taken, strict=True))
        by_core = rows / min(processor for _, processor in taken) / 1e6
        share = statistics.median(processor / seconds for seconds, processor in taken)
        print(f"{name:28} {rows / statistics.median(one for one, _ in taken) / 1e6:6.2f} M examples/s, "
              f"{by_core:5.2f} M a second of a core (best), x {ratio:.2f}, "
              f"CPU / wall {share:.2f}; {said} ({len(free)} of {len(taken)})", flush=True)  # fmt: skip
    limit(examples, passes)
    learn(examples, passes)


def limit(examples, passes: int) -> None:  # type: ignore[no-untyped-def]
    """A kernel in C on the same examples, and ours in turn with it; rows asked for before their turn, and not."""
    if shutil.which("gcc") is None:
        print("gcc is not installed: no kernel in C beside it")
        return
    from pipeline.training.descent.values import FREE, Model, Step

    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(__file__).with_name("linear_kernel.c"), Path(folder) / "kernel.so"
        options = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
        subprocess.run(["gcc", *options, "-o", str(library), str(source)], check=True)
        kernel = ctypes.CDLL(str(library)).walk
    kernel.restype = ctypes.c_double
    rows = examples.rows
    shrink = (1.0 / (1.0 + 0.5e-5 * examples.penalties())).astype(np.float32)
    step = Step(0.5, 0.005, 1.0, 0, FREE)

    def pointer(array: np.ndarray) -> ctypes.c_void_p:
        return ctypes.c_void_p(array.ctypes.data)

    def in_c(order: np.ndarray, weights: np.ndarray, ahead: int) -> None:
        bias = np.zeros(1, np.float32)
        kernel(*map(pointer, (rows.start, rows.columns, rows.value, rows.label_start, order)),
               ctypes.c_int64(len(order)), *map(pointer, (weights, bias, shrink)), ctypes.c_float(0.5),
               ctypes.c_int64(ahead))  # fmt: skip

    for random in (False, True):
        order = examples.order(np.random.default_rng(0), random)
        ways: dict[str, Callable[[], object]] = {}
        for name, ahead in (("C", 0), ("C, rows asked for 4 before", 4), ("C, rows asked for 16 before", 16)):
            ways[name] = partial(in_c, order, np.zeros(examples.dim, np.float32), ahead)
        model = Model(np.zeros(examples.dim, np.float32), np.zeros(1, np.float32), shrink, np.zeros(0, np.int32))
        ways["ours"] = partial(examples.walk, model, order, step, False)
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(passes + 1):
            for name, act in ways.items():
                taken[name].append(timed(act))
        for name, times in taken.items():
            print(f"{name + (', random rows' if random else ', blocks'):42} "
                  f"{len(order) / min(times[1:]) / 1e6:5.2f} M a second of a core (best), "
                  f"{len(order) / statistics.median(times[1:]) / 1e6:5.2f} (median)", flush=True)  # fmt: skip


def learn(examples, passes: int) -> None:  # type: ignore[no-untyped-def]
    """scikit-learn's descent on the same examples."""
    if importlib.util.find_spec("sklearn") is None:
        print("scikit-learn is not installed: no SGDClassifier beside it")
        return
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import SGDClassifier

    rows = examples.rows
    matrix = csr_matrix((rows.value, rows.columns.astype(np.int32), rows.start), (examples.count, examples.dim))
    labels = np.where(np.diff(rows.label_start) > 0, 1, -1)
    once = timed(lambda: SGDClassifier(alpha=1e-5, max_iter=1, tol=None).fit(matrix, labels))
    more = timed(lambda: SGDClassifier(alpha=1e-5, max_iter=1 + passes, tol=None).fit(matrix, labels))
    print(f"SGDClassifier                {examples.count * passes / (more - once) / 1e6:6.2f} M a second of a core")


def timed(act: Callable[[], object]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


def memory(rows: int, folder: Path) -> None:
    from tests.unit.training.sparse_sets import like_rcv1, write

    path = write(folder / "linear_models.svm", like_rcv1(rows, COORDINATES, FILLED))
    small = write(folder / "linear_models_small.svm", like_rcv1(2000, 500, 20))
    command = [sys.executable, "-c", MEMORY, str(path), str(small)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        path.unlink()
        small.unlink()
    print(f"memory of reading {rows:,} examples and 20 passes: {float(done.stdout):.2f} times the examples'")


def dense(folder: Path, rows: int, dim: int, classes: int) -> None:
    import pyarrow as pa
    from pyarrow import parquet as pq

    from pipeline.training.descent import data
    from pipeline.training.descent.descent import Run, Wanted
    from pipeline.training.descent.losses import Loss
    from pipeline.training.descent.memory import Own
    from pipeline.training.descent.workers import Threads

    draws = np.random.default_rng(0)
    centres = draws.standard_normal((classes, dim)).astype(np.float32)
    path = folder / "linear_models.parquet"
    form = pa.schema([("label", pa.int32()), ("features", pa.list_(pa.float32(), dim))])
    with pq.ParquetWriter(path, form, compression="none", use_dictionary=False) as file:
        for _ in range(0, rows, 1000):
            labels = draws.integers(0, classes, 1000)
            values = np.maximum(draws.standard_normal((1000, dim), np.float32) + 0.2 * centres[labels], 0.0)
            values /= np.linalg.norm(values, axis=1, keepdims=True)
            listed = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), dim)
            file.write_table(pa.table([pa.array(labels, pa.int32()), listed], schema=form))
    try:
        began = time.perf_counter()
        with data.opened(data.Source(path, folder), Own()) as found:
            examples = found.examples
            print(f"read once: {examples.count / (time.perf_counter() - began):,.0f} rows/s of Parquet")
            for workers in (1, 2):
                run = Run(
                    examples, None, Wanted(Loss.HINGE, 1e-5, rate=0.5, workers=workers), Threads(examples, workers)
                )
                run.once(1)
                passes = [run.once(number) for number in range(2, 7)]
                took = timed(lambda: [None for _ in examples.blocks(range(examples.count))])  # type: ignore[attr-defined]
                best = min(passes, key=lambda one: one.processor)
                print(f"{workers} worker(s): {examples.count / statistics.median(one.seconds for one in passes):,.0f} "
                      f"rows/s, {examples.count / best.processor:,.0f} a second of a core x {classes} classes; reading "
                      f"alone is {100 * took / best.processor:.0f} % of a pass")  # fmt: skip
            print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB in all")
            beside = np.concatenate([one.rows.copy() for one in examples.blocks(range(64))])  # type: ignore[attr-defined]
            told = examples.label[: len(beside)]  # type: ignore[attr-defined]
    finally:
        path.unlink()
    if importlib.util.find_spec("sklearn") is None:
        print("scikit-learn is not installed: no SGDClassifier beside it")
        return
    from sklearn.linear_model import SGDClassifier

    learner = SGDClassifier(alpha=1e-5)
    learner.partial_fit(beside, told, classes=np.arange(classes))
    took = min(timed(lambda: learner.partial_fit(beside, told)) for _ in range(3))
    print(f"SGDClassifier, {len(beside):,} of them in memory: {len(beside) / took:,.0f} a second of a core x {classes}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--dense", type=Path)
    parser.add_argument("--memory", type=Path, help="measure memory alone, with a file in this folder")
    parser.add_argument("--dim", type=int, default=4096)
    parser.add_argument("--classes", type=int, default=12)
    args = parser.parse_args()
    if args.dense:
        dense(args.dense, args.rows or 30_000, args.dim, args.classes)
    elif args.memory:
        memory(args.rows or 200_000, args.memory)
    else:
        sparse(args.rows or 804_414, args.passes)


if __name__ == "__main__":
    main()
