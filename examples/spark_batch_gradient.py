"""Batch gradient descent on Spark: the driver's loop, with a net in each executor that its tasks share.

    spark-submit --master 'local-cluster[2,1,1024]' examples/spark_batch_gradient.py

Each iteration is a job of Spark.  The driver sends its weights, a task is a customer of the barista of its executor and
computes the gradient of one shard of random data, treeReduce sums them, and the driver applies the solver's update:
the next version of the weights.  A task keeps nothing, so Spark may run it again, anywhere; and since the sum has one
order, any number of executors gives the same bits.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from pyspark import Broadcast
from pyspark.sql import SparkSession

import hathi
from hathi import barista

ROWS, FEATURES, CLASSES = 64, 100, 10
NET = f"""
layer {{ name: "in" type: "Input" top: "data" top: "label" input_param {{
  shape {{ dim: {ROWS} dim: {FEATURES} }} shape {{ dim: {ROWS} }} }} }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param {{ num_output: 200 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param {{ num_output: {CLASSES} weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.2 momentum: 0.9 lr_policy: "fixed" max_iter: 1000 random_seed: 1'

Weights = dict[str, np.ndarray]
Computed = tuple[barista.Parts, float, set[int]]


def main() -> int:
    """0; 1 where the loss did not become less; 2 where Hathi cannot train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--shards", type=int, default=4, help="of a batch; what they are decides the result's bits")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, SparkSession.builder.appName("batch gradient").getOrCreate() as spark:
        os.chdir(folder)  # the solver's path of its net is relative to it, as Caffe's
        Path("net.prototxt").write_text(NET)
        Path("solver.prototxt").write_text(SOLVER)
        try:
            first, last = descended(spark, Path("solver.prototxt"), args.iterations, args.shards)
        except hathi.Error as error:
            print(error, file=sys.stderr)
            return 2
    return int(last >= first)


def descended(spark: SparkSession, solver: Path, iterations: int, shards: int) -> tuple[float, float]:
    """The losses of the first iteration and of the last one."""
    job, losses, seconds, used = barista.job(solver), list[float](), list[float](), set[int]()
    with barista.start(solver, threads=1) as served, barista.Customer(served.interface) as master:
        for number in range(iterations):
            began = time.monotonic()
            weights = spark.sparkContext.broadcast({name: one.copy() for name, one in master.copy().items()})
            tasks = spark.sparkContext.parallelize([(at, number * shards + at) for at in range(shards)], shards)
            computed = tasks.map(partial(gradient, job, master.version, weights))
            parts, loss, pids = computed.treeReduce(partial(added, shards))
            for there, total in zip(master.gradients.values(), parts[range(shards)], strict=True):
                there[...] = total
            master.update(passes=shards)
            weights.destroy()
            losses.append(loss / shards)
            seconds.append(time.monotonic() - began)
            used |= pids
        digest = hashlib.sha256(b"".join(one.tobytes() for one in master.copy().values())).hexdigest()
        print(f"{iterations} iterations of {shards} x {ROWS} examples, {statistics.median(seconds):.2f} s each; "
              f"processes with a net: {len(used)}")  # fmt: skip
        print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; weights of version {master.version}: sha256 {digest[:16]}")
    return losses[0], losses[-1]


def gradient(job: barista.Job, version: int, weights: Broadcast[Weights], task: tuple[int, int]) -> Computed:
    """In a task: the gradient of a shard, its loss, and the process that computed both."""
    shard, number = task
    with job.customer() as customer:
        if customer.version != version:
            customer.weights(version, weights.value)
        answer = customer.gradient(batch(number), number=number, version=version)
        return barista.part(shard, customer.gradients), answer.loss, {customer.about()["pid"]}


def added(shards: int, some: Computed, others: Computed) -> Computed:
    return barista.joined(shards, some[0], others[0]), some[1] + others[1], some[2] | others[2]


def batch(number: int) -> dict[str, np.ndarray]:
    """Random points, and the class that one fixed random matrix gives them."""
    points = np.random.default_rng(number).standard_normal((ROWS, FEATURES), np.float32)
    classes = np.random.default_rng(2**40).standard_normal((FEATURES, CLASSES), np.float32)
    return {"data": points, "label": np.argmax(points @ classes, axis=1)}


if __name__ == "__main__":
    sys.exit(main())
