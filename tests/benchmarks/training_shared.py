"""What it costs to share a training: two processes beside one with the same shards, and the exchange beside memcpy.

    OMP_WAIT_POLICY=passive python -m tests.benchmarks.training_shared [cifar caffenet] [--rounds 3]

The commands take turns; a step is the median time between two displays of the log.  The overhead is how much longer
two processes of one thread take for a step than half of one such process; on cores that other programs use it is that
of CPU time which holds.  The exchange is of CaffeNet's 244 MB between two processes of this host; memcpy copies it.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import re
import resource
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.training.sharing.connection import Member, listen
from pipeline.training.sharing.peers import Peers
from tests.benchmarks.training_loop import solver
from tests.environment import environ
from tests.integration.conftest import ROOT

NUMBERS = 61_000_000
"""Of CaffeNet's learned blobs."""
SHARDS = 8
STEPS = {"cifar": (200, 20), "caffenet": (6, 1)}
"""Iterations of a turn, and between two displays."""
_DISPLAYED = re.compile(r"^I\d{4} (\d\d):(\d\d):(\d\d\.\d+) .*Iteration \d+ \(", re.MULTILINE)


def exchange(rounds: int) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    other = context.Process(target=_other, args=(there, rounds))
    other.start()
    listening = listen("127.0.0.1")
    members = [Member("127.0.0.1", listening.getsockname()[1], "this one"), here.recv()]
    here.send(members)
    peers = Peers(0, 2, members)
    peers.meet(listening, b"token")
    values, copy = np.ones(NUMBERS, np.float32), np.zeros(NUMBERS, np.float32)
    times, copies = [], []
    for _ in range(rounds + 1):
        peers.sum([], b"")
        begin = time.perf_counter()
        peers.sum([values], b"")
        times.append(time.perf_counter() - begin)
        peers.sum([], b"")
        begin = time.perf_counter()
        np.copyto(copy, values)
        copies.append(time.perf_counter() - begin)
    peers.close()
    other.join()
    took, copied = median(times[1:]), median(copies[1:])
    size = NUMBERS * 4 / 1e6
    print(f"exchange of {size:.0f} MB: {took * 1e3:.0f} ms; memcpy of the same {copied * 1e3:.0f} ms; rate by memcpy's "
          f"{copied / took:.2f}")  # fmt: skip


def _other(pipe: Connection, rounds: int) -> None:
    listening = listen("127.0.0.1")
    pipe.send(Member("127.0.0.1", listening.getsockname()[1], "the other"))
    peers = Peers(1, 2, pipe.recv())
    peers.meet(listening, b"token")
    values = np.ones(NUMBERS, np.float32)
    for _ in range(rounds + 1):
        peers.sum([], b"")
        peers.sum([values], b"")
        peers.sum([], b"")


def step(folder: Path, workers: int, threads: int, name: str) -> tuple[float, float]:
    """Seconds of a step, and of CPU, by all processes; starts are in the latter."""
    words = [sys.executable, "-m", "pipeline.cli.main", "train", str(folder / "solver.prototxt"), "--again",
             "--no-check", "--shards", str(SHARDS), "--workers", str(workers), "--threads", str(threads)]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, cwd=folder, env={**environ(), "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    at = [int(h) * 3600 + int(m) * 60 + float(s) for h, m, s in _DISPLAYED.findall(done.stderr)]
    each = STEPS[name][1]
    steps = [(second - first) / each for first, second in itertools.pairwise(at[1:])]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return median(steps), cpu


def overhead(name: str, rounds: int) -> None:
    ways = {"one process, 1 thread": (1, 1), "one process, 2 threads": (1, 2), "two processes, 1 thread each": (2, 1)}
    with tempfile.TemporaryDirectory(prefix="hathi-shared-") as place:
        folder = Path(place)
        path = solver(name, folder, 512)
        iterations, display = STEPS[name]
        text = path.read_text().replace("max_iter: 1000000", f"max_iter: {iterations}")
        path.write_text(text.replace("display: 20 average_loss: 20", f"display: {display}"))
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, (workers, threads) in ways.items():
                found[way].append(step(folder, workers, threads, name))
    times = {way: median(one for one, _ in values) for way, values in found.items()}
    cpus = {way: median(one for _, one in values) for way, values in found.items()}
    one, both, two = times
    for way in ways:
        print(f"{name}: {way}: {times[way] * 1e3:.1f} ms a step, {cpus[way]:.1f} s of CPU in all")
    print(f"{name}: overhead of two processes beside half of one: {2 * times[two] / times[one] - 1:+.0%}")
    print(f"{name}: beside one with two threads {times[two] / times[both] - 1:+.0%}; CPU by that of one "
          f"{cpus[two] / cpus[one]:.2f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=["cifar"], choices=[*STEPS, "exchange"])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    exchange(max(3, args.rounds))
    for name in args.nets:
        if name in STEPS:
            overhead(name, args.rounds)


if __name__ == "__main__":
    main()
