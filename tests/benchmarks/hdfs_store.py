"""CPU-seconds per MB of the HDFS store against raw HdfsCLI, the same bytes on the same server in the same run.

python -m tests.benchmarks.hdfs_store [MB in all] [rounds]: files of 5 and 50 MB; the target is 1.15 times HdfsCLI's.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from hdfs import InsecureClient

from tests.servers.hdfs import HdfsServer, running

MB = 1_000_000
BLOCK = 1 << 20


def cpu(act: Callable[[], None]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


def compare(server: HdfsServer, size: int, files: int, rounds: int, folder: Path) -> None:
    path = folder / "content"
    path.write_bytes(os.urandom(size))
    client = InsecureClient(f"http://{server.address}", user="root")
    store = server.store("tests/store")

    def raw_put() -> None:
        for number in range(files):
            with path.open("rb") as file:
                client.write(f"/tests/raw/{number}", file, overwrite=True)

    def put() -> None:
        for number in range(files):
            store.put(str(number), path)

    def raw_read() -> None:
        for number in range(files):
            with client.read(f"/tests/raw/{number}") as reader:
                while reader.read(BLOCK):
                    pass

    def read() -> None:
        for number in range(files):
            with store.open(str(number)) as stream:
                while stream.read(BLOCK):
                    pass

    pairs = {"put": (raw_put, put), "read": (raw_read, read)}
    for name, (raw, ours) in pairs.items():
        taken = [(cpu(raw), cpu(ours)) for _ in range(rounds)]
        raw_ms, our_ms = (median(column) * 1000 / (size * files / MB) for column in zip(*taken, strict=True))
        print(
            f"{name:4} {files:3} x {size // MB:2} MB: {raw_ms:.3f} ms/MB raw, {our_ms:.3f} ours: {our_ms / raw_ms:.2f}"
        )


def main(total: int, rounds: int) -> None:
    with running() as server, tempfile.TemporaryDirectory() as folder:
        for size in (5, 50):
            compare(server, size * MB, max(1, total // size), rounds, Path(folder))


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    main(*(words or [500]), *([] if len(words) > 1 else [5]))
