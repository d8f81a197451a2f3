"""Shards of a linear model's examples on Apache Spark: each executor keeps those that it reads, and hands over one sum.

A task has a block of the tree of shards.  What it sums itself and what the driver joins are the same additions in the
same order as in one process, so a number of executors decides how long a training takes and no bit of its result.
"""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pyspark import SparkContext, SparkFiles, StorageLevel
from pyspark.sql import SparkSession

from pipeline.cluster.spark import given_up
from pipeline.errors import ConfigError, PipelineError
from pipeline.training import tree
from pipeline.training.descent.pieces import Plan
from pipeline.training.descent.shard import Place
from pipeline.training.descent.synchronous import Act

R = TypeVar("R")
_AGAIN = "type the same command again; the executors' logs say more"


@dataclass(frozen=True)
class _Kept:
    """Where an executor keeps the shards of a training; the folder goes with the executor."""

    plan: Plan
    training: str

    @property
    def place(self) -> Place:
        root = Path(os.path.abspath(SparkFiles.getRootDirectory()))  # relative on executors
        return Place(root / f"hathi-shards-{self.training}", self.plan)


@dataclass(frozen=True)
class _Each(Generic[R]):
    """What a task does with each of some shards of its block."""

    act: Act[R]
    wanted: frozenset[int]

    def __call__(self, place: Place, block: range) -> list[tuple[int, R]]:
        return [(shard, self.act(place, shard)) for shard in block if shard in self.wanted]


@dataclass(frozen=True)
class _Total:
    """What a task sums over its block."""

    act: Act[tree.Arrays]

    def __call__(self, place: Place, block: range) -> tuple[range, tree.Arrays]:
        return block, tree.total(block, lambda shard: self.act(place, shard))


class SparkShards:
    """A cluster of `synchronous`.  tasks: at the same time, at most one a shard; 0: as many as there are slots."""

    def __init__(self, spark: SparkContext, plan: Plan, tasks: int = 0) -> None:
        self._spark = spark
        self._count = len(plan.shards)
        self._kept = _Kept(plan, uuid.uuid4().hex)
        self.blocks = tree.blocks(self._count, min(self._count, tasks or spark.defaultParallelism))
        # What is persisted is a few bytes: by them Spark sends a block to the executor that has read its shards.
        self._at = spark.parallelize(self.blocks, len(self.blocks)).map(_same).persist(StorageLevel.MEMORY_AND_DISK)

    def each(self, act: Act[R], shards: Sequence[int]) -> list[R]:
        found = dict(one for some in self._run(_Each(act, frozenset(shards))) for one in some)
        return [found[shard] for shard in shards]

    def total(self, act: Act[tree.Arrays]) -> tree.Arrays:
        parts = dict(self._run(_Total(act)))
        tree.join(self._count, parts)
        return parts[range(self._count)]

    def _run(self, do: Callable[[Place, range], R]) -> list[R]:
        """What comes of each block.  Raises what a task raised; TemporaryError when Spark gave the job up."""
        carried = self._spark.broadcast((self._kept, do))

        def task(blocks: Iterable[range]) -> Iterator[R | PipelineError]:
            kept, act = carried.value
            for block in blocks:
                try:
                    yield act(kept.place, block)
                except PipelineError as error:
                    yield error

        try:
            answers = self._at.mapPartitions(task).collect()
        except Exception as error:  # py4j's own kinds
            raise given_up(error, _AGAIN) from error
        finally:
            carried.destroy()
        found: list[R] = []
        for one in answers:
            if isinstance(one, PipelineError):
                raise one
            found.append(one)
        return found


def _same(block: range) -> range:
    return block


@contextlib.contextmanager
def shards_of(plan: Plan, master: str | None, executors: int, conf: Mapping[str, str]) -> Iterator[SparkShards]:
    """A session as spark-submit or the master says, ended afterwards.  executors: 0: as the configuration says.

    Raises ConfigError where Spark does not start.
    """
    builder = SparkSession.builder.appName("hathi train linear").config("spark.ui.showConsoleProgress", "false")
    if master:
        builder = builder.master(master)
    if executors:
        builder = builder.config("spark.executor.instances", str(executors))
    if master and master.startswith("local"):  # its workers are of this host, and need what this process has
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    for name, value in conf.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:  # py4j's own kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        cause = next((line for line in lines if "Exception: " in line), lines[0] if lines else type(error).__name__)
        raise ConfigError(
            "Spark does not start", cause, "correct the master, or give --spark-conf NAME=VALUE"
        ) from error
    try:
        context = session.sparkContext
        cores = int(context.getConf().get("spark.executor.cores", "1"))
        yield SparkShards(context, plan, executors * cores)
    finally:
        session.stop()
