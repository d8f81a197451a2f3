"""What it costs to share a training: two processes beside one with the same shards, and the exchange beside memcpy.

    OMP_WAIT_POLICY=passive python -m tests.benchmarks.training_shared [cifar caffenet] [--rounds 3]

The commands take turns; a step is the median time between two displays of the log.  The overhead is how much longer
two processes of one thread take for a step than half of one such process; on cores that other programs use it is that
of CPU time which holds.  The exchange is of CaffeNet's 244 MB between two processes of this host, in memory that both
see, over TCP, and by torch's gloo, beside a copy of as many bytes.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.training.sharing.meeting import Member, listen
from pipeline.training.sharing.peers import Peers
from tests.benchmarks.training_loop import BATCH, solver
from tests.environment import environ
from tests.integration.conftest import ROOT
from tests.servers.demand import free_port

WAYS, COPY = ("memory of both", "TCP", "gloo of torch"), "copy"
NUMBERS = 61_000_000
"""Of CaffeNet's learned blobs."""
SMALL = {"CIFAR-10 quick": 145_578, "LeNet": 431_080}
SHARDS = 8
STEPS = {"cifar": (20, 140, 20), "caffenet": (2, 6, 1)}
"""Iterations of the shorter and the longer training, and between two displays."""
ORIGINAL = "original.prototxt"
_DISPLAYED = re.compile(r"^I\d{4} (\d\d):(\d\d):(\d\d\.\d+) .*Iteration \d+ \(", re.MULTILINE)


@dataclass
class Took:
    """Of the rounds: seconds, and seconds of CPU of this process, by what was done."""

    wall: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def time(self, way: str, do: Callable[[], object]) -> None:
        began, before = time.perf_counter(), time.process_time()
        do()
        self.cpu[way].append(time.process_time() - before)
        self.wall[way].append(time.perf_counter() - began)


def exchange(rounds: int) -> None:
    """In memory of both, over TCP, by gloo, and a copy of the same bytes, in turns."""
    load = os.getloadavg()[0]
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    other = context.Process(target=_rounds, args=(1, there, rounds))
    other.start()
    mine = _rounds(0, here, rounds)
    theirs: Took = here.recv()
    other.join()
    size = NUMBERS * 4 / 1e6
    copied = {"wall": median(mine.wall[COPY][1:]), "cpu": median(mine.cpu[COPY][1:])}
    print(f"exchange of {size:.0f} MB between 2 processes, load {load:.1f} before it; a copy of the same: "
          f"{copied['wall'] * 1e3:.0f} ms, {copied['cpu'] * 1e3:.0f} ms of CPU")  # fmt: skip
    for way in WAYS:
        took = median(mine.wall[way][1:])
        cpu = (median(mine.cpu[way][1:]) + median(theirs.cpu[way][1:])) / 2
        print(f"  {way}: {took * 1e3:.0f} ms (least {min(mine.wall[way]) * 1e3:.0f}), {cpu * 1e3:.0f} ms of CPU of "
              f"each; rate by the copy's {copied['wall'] / took:.2f}, by CPU {copied['cpu'] / cpu:.2f}")  # fmt: skip


def _rounds(rank: int, pipe: Connection, rounds: int) -> Took:
    """One of the two processes."""
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    near, far = (_met(rank, pipe, ("127.0.0.1", host)) for host in ("127.0.0.1", "127.0.0.2"))
    mine = free_port()
    pipe.send(mine)
    port = max(mine, pipe.recv())
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    values, copy = torch.zeros(NUMBERS), np.ones(NUMBERS, np.float32)
    took, shapes = Took(), [(NUMBERS,)]
    for _ in range(rounds + 1):
        for way, peers in zip(WAYS, (near, far), strict=False):
            peers.sum([], b"")
            took.time(way, lambda peers=peers: peers.sum(peers.room(shapes), b""))  # type: ignore[misc]
        distributed.barrier()
        took.time(WAYS[2], lambda: distributed.all_reduce(values))
        near.sum([], b"")
        if not rank:
            took.time(COPY, lambda: np.copyto(copy, near.room(shapes)[0]))
        near.sum([], b"")
    distributed.destroy_process_group()
    near.close()
    far.close()
    if rank:
        took.wall, took.cpu = dict(took.wall), dict(took.cpu)
        pipe.send(took)
    return took


def small() -> None:
    """The exchange of small nets, of which latency is the most."""
    context = multiprocessing.get_context("spawn")
    for name, numbers in SMALL.items():
        here, there = context.Pipe()
        other = context.Process(target=_again, args=(1, there, numbers))
        other.start()
        took = _again(0, here, numbers)
        other.join()
        ways = (f"{way} {median(one) * 1e3:.2f} ms (least {min(one) * 1e3:.2f})" for way, one in took.wall.items())
        print(f"exchange of {name}'s {numbers * 4 / 1e6:.1f} MB: {'; '.join(ways)}")


def _again(rank: int, pipe: Connection, numbers: int) -> Took:
    took = Took()
    for way, host in zip(WAYS, ("127.0.0.1", "127.0.0.2"), strict=False):
        peers = _met(rank, pipe, ("127.0.0.1", host))
        room = peers.room([(numbers,)])
        for _ in range(1000):
            took.time(way, partial(peers.sum, room, b""))
        peers.close()
    return took


def _met(rank: int, pipe: Connection, hosts: tuple[str, str]) -> Peers:
    listening = listen(hosts[rank])
    mine = Member(hosts[rank], listening.port, f"process {rank}")
    pipe.send(mine)
    theirs = pipe.recv()
    peers = Peers(rank, 2, [theirs, mine] if rank else [mine, theirs])
    peers.meet(listening, b"token")
    return peers


def step(folder: Path, name: str, workers: int, threads: int) -> tuple[float, float]:
    """Seconds of a step, and of CPU in it by all processes: what a longer training takes more than a shorter one."""
    few, many, display = STEPS[name]
    (_, started), (said, whole) = (trained(folder, iterations, workers, threads) for iterations in (few, many))
    at = [int(h) * 3600 + int(m) * 60 + float(s) for h, m, s in _DISPLAYED.findall(said)]
    steps = [(second - first) / display for first, second in itertools.pairwise(at[1:])]
    return median(steps), (whole - started) / (many - few)


def trained(folder: Path, iterations: int, workers: int, threads: int) -> tuple[str, float]:
    """What a training says, and its seconds of CPU."""
    text = (folder / ORIGINAL).read_text()
    (folder / "solver.prototxt").write_text(text.replace("max_iter: 1000000", f"max_iter: {iterations}"))
    words = [sys.executable, "-m", "pipeline.cli.main", "train", str(folder / "solver.prototxt"), "--again",
             "--no-check", "--shards", str(SHARDS), "--workers", str(workers), "--threads", str(threads)]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, cwd=folder, env={**environ(), "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return done.stderr, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def overhead(name: str, rounds: int) -> None:
    ways = {"one process, 1 thread": (1, 1), "one process, 2 threads": (1, 2), "two processes, 1 thread each": (2, 1)}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="hathi-shared-") as place:
        folder = Path(place)
        path = solver(name, folder, 512)
        text = path.read_text().replace("display: 20 average_loss: 20", f"display: {STEPS[name][2]}")
        (folder / ORIGINAL).write_text(text)
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, (workers, threads) in ways.items():
                found[way].append(step(folder, name, workers, threads))
    times = {way: median(one for one, _ in values) for way, values in found.items()}
    cpus = {way: median(one for _, one in values) for way, values in found.items()}
    least = {way: min(one for _, one in values) for way, values in found.items()}
    one, both, two = times
    print(f"{name}, batches of {BATCH} in {SHARDS} shards; {rounds} rounds, load {load:.1f} before them")
    for way in ways:
        print(f"  {way}: {times[way] * 1e3:.1f} ms a step, {cpus[way] * 1e3:.1f} ms of CPU (least "
              f"{least[way] * 1e3:.1f})")  # fmt: skip
    print(f"  overhead of two processes beside half of one: {2 * times[two] / times[one] - 1:+.0%}; beside one with "
          f"two threads {times[two] / times[both] - 1:+.0%}")  # fmt: skip
    print(f"  by CPU beside one: {cpus[two] / cpus[one] - 1:+.0%} (of the least {least[two] / least[one] - 1:+.0%}); "
          f"beside one with two threads {cpus[two] / cpus[both] - 1:+.0%}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=["cifar"], choices=[*STEPS, "exchange"])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    exchange(max(3, args.rounds))
    small()
    for name in args.nets:
        if name in STEPS:
            overhead(name, args.rounds)


if __name__ == "__main__":
    main()
