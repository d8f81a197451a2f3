"""The ship stage on one core: `python -m tests.benchmarks.ship [--refs N] [--profile]` prints a table.

One file of refs with external ids and URLs of about 80 characters, in Parquet, in CSV and in quoted CSV; everything
that a run does is counted: looking at the source, reading, hashing ids, encoding, and the commits of a folder store.
Wall time is shown with each file flushed to the disk, which is the default, and without (bucket.fsync = false): a
commit waits four times for the disk, which is the disk's speed and not ours.
"""

from __future__ import annotations

import argparse
import cProfile
import csv
import os
import pstats
import resource
import shutil
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet as pq

from pipeline.app.contexts import contexts
from pipeline.settings import FeatureSet, Settings
from pipeline.stages.compute import Served
from pipeline.stages.following import Asked
from pipeline.stages.loop import LakeStages

WANTED = {"parquet": 200_000, "csv": 100_000, "quoted.csv": 100_000}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--refs", type=int, default=1_000_000)
    options.add_argument("--profile", action="store_true", help="say where the time goes instead")
    given = options.parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    columns = ("refs/CPU s", "wanted", "CPU s", "wall s", "and flushed")
    print(f"{'ship, one core':16} {'refs':>10}" + "".join(f" {column:>12}" for column in columns))
    for name, wanted in WANTED.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_refs(folder / "lake" / f"refs.{name}", given.refs)
            if given.profile:
                profile(folder)
                continue
            ship(folder, fsync=False)  # reads the file into the page cache and imports what is needed
            cpu, wall = timed(folder, given.refs, fsync=False)
            _, flushed = timed(folder, given.refs, fsync=True)
            print(
                f"{name:16} {given.refs:10,} {given.refs / cpu:12,.0f} {wanted:12,} {cpu:12.2f} {wall:12.2f}"
                f" {flushed:12.2f}",
                flush=True,
            )


def used() -> float:
    """CPU seconds of this process and of the readers that it has waited for."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def timed(folder: Path, count: int, *, fsync: bool) -> tuple[float, float]:
    """CPU and wall seconds of shipping it into an empty bucket."""
    shutil.rmtree(folder / "bucket")
    cpu, wall = used(), time.perf_counter()
    refs = ship(folder, fsync=fsync)
    cpu, wall = used() - cpu, time.perf_counter() - wall
    assert refs == count
    return cpu, wall


def write_refs(path: Path, count: int) -> None:
    """A list as a shop has it: its own ids, 200 items a partner."""
    path.parent.mkdir(parents=True)
    numbers = range(count)
    table = pa.table(
        {
            "partner_id": pa.array([number // 200 for number in numbers], pa.int64()),
            "external_id": [f"SKU-{number:07d}" for number in numbers],
            "url": [
                f"https://img.shop.example/catalogue/{number % 977:03d}/large/{number:08d}_600x450.jpg?v={number * 7}"
                for number in numbers
            ],
        }
    )
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return
    quoting = csv.QUOTE_NONNUMERIC if "quoted" in path.name else csv.QUOTE_MINIMAL
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=quoting)  # type: ignore[arg-type]
        writer.writerow(table.column_names)
        writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))


def ship(folder: Path, *, fsync: bool) -> int:
    """All of it by the stage itself; how many refs."""
    settings = Settings.model_validate(
        {
            "state": str(folder / "state"),
            "bucket": {"url": str(folder / "bucket"), "fsync": fsync},
            "lakes": {"shop": {"url": str(folder / "lake"), "sources": [{"path": "."}]}},
            "sets": {"demo": {"net": "none", "blob": "none", "root": "features"}},
        }
    )
    turns = LakeStages(contexts(settings, ["ship"], lambda: False, "ship")[0], no_set, strict=False)
    refs = 0
    while True:
        tally = turns.take("ship")
        assert not tally.problems
        refs += tally.counts.refs
        if not tally.worked:
            return refs


def no_set(asked: Asked, feature_set: FeatureSet) -> Served:
    raise AssertionError(f"ship needs no net: {asked}")


def profile(folder: Path) -> None:
    profiler = cProfile.Profile()
    profiler.runcall(ship, folder, fsync=False)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main()
