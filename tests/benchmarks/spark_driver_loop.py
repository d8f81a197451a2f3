"""The driver's loop of baristas beside a bare Spark job of the same bytes, in turns.

    .venv/bin/python -m tests.benchmarks.spark_driver_loop [--rounds 30] [--shards 2]

The net has as many numbers as LeNet, and a pass of it is one row of a product, so that what is measured is what Spark
and the barista cost, and not computing.  A bare job broadcasts as many bytes, each task adds to them, treeReduce sums,
as one would write it without Hathi.  What a barista costs in a task (its customer, the weights into it, the gradients
out of it) stands beside the computing of a pass.  Wanted: loop / bare <= 1.1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pyspark import Broadcast
from pyspark.sql import SparkSession

from hathi import barista
from tests.integration.conftest import ROOT
from tests.spark.conftest import CONF, MASTER

NUMBERS, WIDTH = 431_080, 431
NET = f"""layer {{ name: "in" type: "Input" top: "data" top: "label" input_param {{
  shape {{ dim: 1 dim: {NUMBERS // WIDTH - 1} }} shape {{ dim: 1 }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param {{ num_output: {WIDTH} weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.001 lr_policy: "fixed" max_iter: 100000 random_seed: 1'
Took = tuple[float, float]
"""Seconds of a task with its barista, and of these the computing."""


def gradient(job: barista.Job, version: int, weights: Broadcast[Any], shard: int) -> tuple[barista.Parts, list[Took]]:
    values = weights.value  # both ways read it
    began = time.perf_counter()
    with job.customer() as customer:
        if customer.version != version:
            customer.weights(version, values)
        computing = time.perf_counter()
        customer.gradient(rows=1, number=shard, version=version)
        computed = time.perf_counter() - computing
        part = barista.part(shard, customer.gradients)
    return part, [(time.perf_counter() - began, computed)]


def joined(shards: int, some: Any, others: Any) -> Any:
    return barista.joined(shards, some[0], others[0]), some[1] + others[1]


def loop(session: SparkSession, job: barista.Job, master: barista.Customer, shards: int) -> tuple[float, list[Took]]:
    began = time.perf_counter()
    weights = session.sparkContext.broadcast({name: one.copy() for name, one in master.copy().items()})
    tasks = session.sparkContext.parallelize(range(shards), shards)
    computed = tasks.map(partial(gradient, job, master.version, weights))
    parts, took = computed.treeReduce(partial(joined, shards))
    for there, total in zip(master.gradients.values(), parts[range(shards)], strict=True):
        there[...] = total
    master.update(passes=shards)
    weights.destroy()
    return time.perf_counter() - began, took


def bare(session: SparkSession, weights: np.ndarray, shards: int) -> float:
    began = time.perf_counter()
    sent = session.sparkContext.broadcast(weights)
    tasks = session.sparkContext.parallelize(range(shards), shards)
    total = tasks.map(lambda shard: sent.value + np.float32(shard)).treeReduce(lambda one, other: one + other)
    weights += total * np.float32(1e-3)
    sent.destroy()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--shards", type=int, default=2)
    wanted = parser.parse_args()
    os.environ.update(PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1", PYTHONPATH=str(ROOT))
    builder = SparkSession.builder.master(MASTER).config("spark.ui.showConsoleProgress", "false")
    for name, value in CONF.items():
        builder = builder.config(name, value)
    loops, bares, took = list[float](), list[float](), list[Took]()
    with tempfile.TemporaryDirectory() as folder, builder.getOrCreate() as session:
        os.chdir(folder)
        Path("net.prototxt").write_text(NET)
        Path("solver.prototxt").write_text(SOLVER)
        job = barista.job("solver.prototxt")
        with barista.start("solver.prototxt", threads=1) as served, barista.Customer(served.interface) as master:
            weights = np.concatenate([one.ravel() for one in master.copy().values()])
            for number in range(wanted.rounds + 3):
                seconds, tasks = loop(session, job, master, wanted.shards)
                other = bare(session, weights, wanted.shards)
                if number >= 3:  # JVMs and workers have begun
                    loops, bares, took = [*loops, seconds], [*bares, other], took + tasks
    ratio = statistics.median(one / other for one, other in zip(loops, bares, strict=True))
    beside = [1000 * (whole - computing) for whole, computing in took]
    print(f"bytes of the weights        {weights.nbytes:,}; {wanted.shards} tasks an iteration, {wanted.rounds} rounds")
    print(f"bare Spark job              {1000 * statistics.median(bares):6.0f} ms (least {1000 * min(bares):.0f})")
    print(f"the driver's loop           {1000 * statistics.median(loops):6.0f} ms (least {1000 * min(loops):.0f})")
    print(f"loop / bare                 {ratio:6.2f} (wanted <= 1.1); of the least {min(loops) / min(bares):.2f}")
    print(f"a pass in a task            {1000 * statistics.median(one for _, one in took):6.2f} ms computed, "
          f"{statistics.median(beside):.2f} ms beside it (least {min(beside):.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
