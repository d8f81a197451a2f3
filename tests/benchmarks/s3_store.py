"""The S3 store against raw boto3 on one server: `python -m tests.benchmarks.s3_store [--mb N] [--rounds N]`.

CPU-seconds of this process per MB, up (a file) and down (a stream, read by 1 MiB), for files of 5, 20 and 50 MB. Raw
boto3 sends the open file with put_object and reads the body of get_object by 1 MiB, with the same checksum (CRC32).
What SHA-256 of the bytes costs, which the stages add, is shown apart.  Wanted: at most 1.15 times raw boto3, beside the
hashing, and at most 300 MB of memory.  The two take turns, and each ratio is the median over the rounds: neighbours on
the machine disturb both alike.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.stores.s3.store import S3Store
from tests.servers.s3 import running

MB = 10**6
BLOCK = 2**20
WANTED = 1.15


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--mb", type=int, default=200, help="moved in each round, way and size")
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    with running() as server, tempfile.TemporaryDirectory() as scratch:
        store = S3Store(server.settings("s3://shared/ours"))
        print(f"{'ms of CPU per MB':20} {'ours':>8} {'boto3':>8} {'ratio':>8} {'wanted':>8} {'SHA-256':>8}")
        for size in (5, 20, 50):
            path = Path(scratch) / f"{size}"
            path.write_bytes(os.urandom(size * MB))
            times = max(1, given.mb // size)
            ways: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
                "up": (lambda: store.put("lake/d/x", path), lambda: raw_put(store, path)),  # noqa: B023
                "down": (lambda: read(store), lambda: raw_read(store)),
            }
            for way, (ours, raw) in ways.items():
                compare(f"{size} MB {way}", ours, raw, times, given.rounds, size, path)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB
    print(f"most memory: {memory:.0f} MB (wanted: at most 300 MB)")


def compare(
    name: str, ours: Callable[[], None], raw: Callable[[], None], times: int, rounds: int, size: int, path: Path
) -> None:
    """One line of the table."""
    pairs = []
    ours(), raw()
    for _ in range(rounds):
        pairs.append((cpu(ours, times) / size, cpu(raw, times) / size))
    hashing = cpu(lambda: hashed(path), times) / size
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    print(f"{name:20} {mine:8.2f} {theirs:8.2f} {ratio:8.2f} {WANTED:8.2f} {hashing:8.2f}", flush=True)


def cpu(work: Callable[[], None], times: int) -> float:
    """Milliseconds of this process's CPU for one call."""
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) * 1000 / times


def raw_put(store: S3Store, path: Path) -> None:
    with path.open("rb") as file:
        store.connection.client().put_object(
            Bucket=store.bucket, Key="raw/lake/d/x", Body=file, ChecksumAlgorithm="CRC32"
        )


def raw_read(store: S3Store) -> None:
    body = store.connection.client().get_object(Bucket=store.bucket, Key="raw/lake/d/x")["Body"]
    while body.read(BLOCK):
        pass


def read(store: S3Store) -> None:
    with store.open("lake/d/x") as stream:
        while stream.read(BLOCK):
            pass


def hashed(path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)


if __name__ == "__main__":
    main()
