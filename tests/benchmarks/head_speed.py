"""A head on many features: seconds and memory.

    .venv/bin/python -m tests.benchmarks.head_speed FOLDER [--rows 100000] [--dim 4096] [--classes 12]

It writes a dataset of that size into FOLDER (4 bytes a number; the training takes as much again), trains each loss in a
process of its own, prints seconds, seconds of the processor and the memory above an idle process, and deletes it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet as pq

from pipeline.training.dataset.manifest import Manifest, ShardFile
from pipeline.training.dataset.manifest import Side as SideOf
from pipeline.training.dataset.shards import digest_of, name_of

GROUP = 512
TRAIN = """
import json, resource, sys, time
from pathlib import Path
from pipeline.training.linear import head
from tests import peak

idle = peak.held()
wanted = head.Wanted(sys.argv[2], float(sys.argv[3]), False, Path(sys.argv[1]))
began = time.perf_counter()
found = head.train(Path(sys.argv[1]) / "set", wanted, lambda says: print(says, file=sys.stderr))
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([time.perf_counter() - began, used.ru_utime + used.ru_stime, (peak.held() - idle) >> 20,
                  found.optimum.evaluations, found.optimum.reached]))
"""


def groups(rows: int, dim: int, classes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Features as a net gives them: none negative, correlated, the directions ever narrower."""
    random = np.random.default_rng(0)
    widths = (np.arange(1, 129) ** -0.5)[:, None]
    mixing = (random.standard_normal((128, dim)) * widths).astype(np.float32)
    centres = random.standard_normal((classes, 128)).astype(np.float32)
    for first in range(0, rows, GROUP):
        labels = random.integers(0, classes, min(GROUP, rows - first))
        hidden = centres[labels] + 2 * random.standard_normal((len(labels), 128), np.float32)
        noise = random.standard_normal((len(labels), dim), np.float32)
        yield np.maximum(0, hidden @ mixing + noise / 2).astype(np.float32), labels.astype(np.int32)


def write(folder: Path, rows: int, dim: int, classes: int) -> None:
    folder.mkdir(parents=True)
    path = folder / name_of(0)
    form = pa.list_(pa.field("element", pa.float32(), nullable=False), dim)
    schema = pa.schema([("key", pa.binary()), ("label", pa.int32()), ("features", form)])
    counts = np.zeros(classes, int)
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for values, labels in groups(rows, dim, classes):
            features = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=form)
            keys = pa.array([b"%08d" % at for at in range(len(labels))], pa.binary())
            writer.write_table(pa.table([keys, pa.array(labels), features], schema=schema))
            counts += np.bincount(labels, minlength=classes)
    told = {str(label): int(count) for label, count in enumerate(counts)}
    shard = ShardFile(name=path.name, rows=rows, sha256=digest_of(path), side="train")
    Manifest(source="a benchmark", examples=rows, labels=told, shards=[shard], kind="features", dim=dim,
             sides={"train": SideOf(examples=rows, labels=told)}).write(folder)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=4096)
    parser.add_argument("--classes", type=int, default=12)
    parser.add_argument("--l2", type=float, default=0.01)
    parser.add_argument("--losses", default="softmax,logistic,hinge")
    args = parser.parse_args()
    try:
        began = time.perf_counter()
        write(args.folder / "set", args.rows, args.dim, args.classes)
        print(f"{args.rows * args.dim * 4 >> 20} MiB of features written in {time.perf_counter() - began:.0f} s")
        for loss in args.losses.split(","):
            told = subprocess.run(
                [sys.executable, "-c", TRAIN, str(args.folder), loss, str(args.l2)],
                check=True, stdout=subprocess.PIPE, text=True,
            ).stdout  # fmt: skip
            wall, cpu, memory, passes, reached = json.loads(told)
            end = "the optimum" if reached else "the limit of float32"
            print(f"{loss}: {wall:.1f} s, {cpu:.1f} s of the processor, {memory} MiB, {passes} passes to {end}")
    finally:
        shutil.rmtree(args.folder / "set", ignore_errors=True)


if __name__ == "__main__":
    main()
