"""Many slow hosts behind the window of open batches: 100 of them, 150 ms an answer, 4 connections each.

    python -m tests.benchmarks.fetch_window [seconds] [hosts] [refs in a batch] [--memory MB] [--hang]

So a host yields 27 images/s at the best.  The net gives 4,096 numbers at once and is no limit; the hosts' own CPU is
in a process apart.  Shows the share of the ceiling that is reached, the peak of memory, what the window held of it and
what it spilled, and the CPU for each image.  "Connections in use" says what the window does whatever else the machine
has to do: 4 of each host.  --hang: one URL of a hundred is on a host that never answers.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipeline.clock import Clock
from pipeline.codec.shards import Matrix
from pipeline.extraction.feature_maker import stream_of
from pipeline.extraction.memory_budget import Bounds
from pipeline.extraction.window import Opened, Window
from pipeline.fetch import Fetcher
from pipeline.records import ImageRef
from pipeline.settings import Compute, Fetch
from tests.benchmarks.fetch_cpu import server

DELAY = 0.15
CONNECTIONS = 4
FULL = 1024
"""Refs in a batch by default: with fewer of them a host's deadlines are shorter alike, so that a minute shows hours."""
Batch = tuple[int, int]
"""A host's number, and the number of the first image."""


class QuickNet:
    """Features without a net: what the window does is measured, not what a net does."""

    dim = 4096
    batch_size = 64

    def forward(self, batch: Matrix) -> Matrix:
        return np.repeat(batch[:, :1], self.dim, axis=1)


def prepare(content: bytes) -> Matrix:
    return np.frombuffer(content[:16], np.uint8).astype(np.float32)


def measure(seconds: float, hosts: int, size: int, memory: int, hangs: str) -> None:
    """Prints one line."""
    limits = Fetch(
        allow_private=True,
        requests_per_second=40.0,
        connections_per_host=CONNECTIONS,
        total_seconds=60.0 * size / FULL,
        breaker_seconds=30.0 * size / FULL,
        batch_seconds=1800.0 * size / FULL,
    )
    ceiling = hosts * CONNECTIONS / DELAY
    images = int(ceiling * seconds / hosts)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with contextlib.ExitStack() as held:
        port, spent = held.enter_context(server(4096, DELAY))
        spill = Path(held.enter_context(tempfile.TemporaryDirectory()))
        fetcher = held.enter_context(Fetcher(limits))
        decoders, runner = (held.enter_context(ThreadPoolExecutor(number)) for number in (2, 1))

        def refs_of(batch: Batch) -> Opened[Batch]:
            host, first = batch
            name = f"http://127.0.{host // 200 + 1}.{host % 200 + 1}:{port}"
            return Opened(batch, list(refs(name, hangs, host, range(first, min(first + size, images)))))

        window: Window[Batch] = Window(
            {f"host {host}": [(host, first) for first in range(0, images, size)] for host in range(hosts)},
            refs_of,
            fetch=stream_of(fetcher, lambda: None),
            prepare=prepare,
            net=QuickNet(),
            decoders=decoders,
            runner=runner,
            clock=Clock(),
            bounds=Bounds(
                batches=Compute().open_batches,
                memory=memory,
                batch_seconds=limits.batch_seconds,
                decoding=192,
                ahead=limits.pending_urls,
                spill=spill,
                disk=Compute().spill_bytes,
            ),
            host_of=fetcher.host_of,
            has_room=fetcher.has_room,
        )
        cpu, began = time.process_time(), time.perf_counter()
        done = most_held = most_spilled = 0
        in_use: list[int] = []
        ended = began
        reasons: dict[str, int] = {}
        for computed in window.run():
            most_held = max(most_held, window.held)
            if computed is None:
                continue
            in_use.append(fetcher.active)
            done += len(computed.rows)
            for row in computed.failures:
                key = f"{row.reason} {row.detail}"
                reasons[key] = reasons.get(key, 0) + 1
            if len(computed.rows):
                ended = time.perf_counter()
            most_spilled = max(most_spilled, sum(file.stat().st_size for file in spill.iterdir()))
        cpu, wall = time.process_time() - cpu, ended - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    use = sorted(in_use)[len(in_use) // 2]
    print(
        f"{hosts} hosts, {done} images in batches of {size}: {done / wall:.0f} images/s of at most {ceiling:.0f} "
        f"({done / wall / ceiling:.2f}), {cpu / done * 1e6:.0f} us CPU/image\n"
        f"  {use} of {hosts * CONNECTIONS} connections in use (median); peak {peak:.0f} MB ({before:.0f} before), "
        f"held {most_held / 2**20:.0f} of {memory / 2**20:.0f} MB, spilled {most_spilled / 2**20:.0f} MB\n"
        f"  the hosts' own CPU {spent[0]:.1f} s of {wall:.1f} s; failures {reasons}"
    )


def refs(name: str, hangs: str, host: int, numbers: range) -> Iterator[ImageRef]:
    for number in numbers:
        place = hangs if hangs and number % 100 == 99 else name
        yield ImageRef(host, number, "", f"{place}/{host}/{number}.jpg", b"", number)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("seconds", nargs="?", type=float, default=30.0)
    options.add_argument("hosts", nargs="?", type=int, default=100)
    options.add_argument("size", nargs="?", type=int, default=256)
    options.add_argument("--memory", type=int, default=256, metavar="MB")
    options.add_argument("--hang", action="store_true")
    given = options.parse_args()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        hangs = f"http://127.0.0.1:{silent.getsockname()[1]}" if given.hang else ""
        measure(given.seconds, given.hosts, given.size, given.memory * 2**20, hangs)


if __name__ == "__main__":
    sys.exit(main())
