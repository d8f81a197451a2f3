"""A training on Apache Spark: a barrier stage from one snapshot to the next, on connections of its own.

Spark places the tasks, and begins all of them again where one dies; they meet by its barrier once.  What they sum goes
over their own connections (`training/sharing/`), for Spark's barrier costs a second.  The last whole snapshot is all
that goes from one stage to the next, so that a stage may be tried again, with fewer executors as well.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark import BarrierTaskContext
from pyspark.sql import SparkSession

from pipeline.amounts import counted
from pipeline.cluster.training_task import Part, Site, Worked, part_of, work
from pipeline.errors import ConfigError, Stopped, TemporaryError
from pipeline.training import tree
from pipeline.training.sharing.connection import HINT
from pipeline.training.sharing.processes import Share, demand_shards
from pipeline.training.sharing.rounds import Round

Session = SparkSession
LOOK_SECONDS = 1.0
TRIES = 5
"""Jobs that Spark gives up in a row, without a new snapshot, after which the training ends."""
SHORT_SECONDS = 30.0
"""So long a stage waits for as many executors as it wants, before it is begun with those that are there."""
_CONF = {
    "spark.dynamicAllocation.enabled": "false",  # a barrier stage needs all its slots at once
    "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "2",
    "spark.stage.maxConsecutiveAttempts": "4",
}


@dataclass(frozen=True)
class Ways:
    """How a training is watched.

    stopping: asked each second.  say: takes a sentence.  reached: the iteration of the newest snapshot.
    """

    stopping: Callable[[], bool]
    say: Callable[[str], None]
    reached: Callable[[], int]


@contextlib.contextmanager
def open_session(master: str | None, more: Mapping[str, str]) -> Iterator[SparkSession]:
    """A session as spark-submit or the master says, ended afterwards."""
    builder = SparkSession.builder.appName("hathi train")
    if master:
        builder = builder.master(master)
    for name, value in {**_CONF, **more}.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    try:
        yield session
    finally:
        session.stop()


class OnSpark:
    """The executors of a session, for one training.  workers: tasks of the last stage."""

    def __init__(self, session: SparkSession, executors: int, shards: int, ways: Ways) -> None:
        """executors: 0: as many as the cluster has slots, up to the shards.

        Raises ConfigError for more than there are shards, or than the cluster has slots.
        """
        self._spark, self._ways = session.sparkContext, ways
        self._local = self._spark.master.startswith("local[") or self._spark.master == "local"
        slots = self._spark.defaultParallelism
        self.workers = executors or min(slots, shards)
        demand_shards(self.workers, shards, "executor")
        if self.workers > slots:
            raise ConfigError(
                f"{counted(self.workers, 'executor')} are wanted, and the cluster has {counted(slots, 'slot')}",
                "all of them compute at the same time",
                "give fewer --executors, or a larger cluster",
            )

    def stage(self, share: Share) -> list[Worked]:
        """Trains to the next snapshot; what each executor did.

        Raises what an executor refuses; Stopped when asked to end; TemporaryError where Spark gives it up TRIES times.
        """
        failures, at = 0, self._ways.reached()
        while True:
            try:
                found = self._job(share)
            except TemporaryError as error:
                reached = self._ways.reached()
                failures, at = (1 if reached > at else failures + 1), reached
                if failures >= TRIES:
                    raise
                self._ways.say(f"{error.message}: {error.detail}; it goes on from the last snapshot")
                self.workers = max(1, min(self.workers, self._slots()))
                continue
            for one in found:
                if one.error is not None:
                    raise one.error
            return found

    def rounds(self, share: Share, local_steps: int) -> OnDriver:
        """Rounds of a loop in this process: each is one job without a barrier, and a task that dies is tried again."""
        return OnDriver(self, share, local_steps)

    def summed(self, share: Share, one: Round) -> Part:
        """One round, its parts joined on the executors.  Raises TemporaryError where Spark gives it up."""
        shards, carried = share.shards, self._spark.broadcast(one)
        blocks = tree.blocks(shards, self.workers)
        try:
            tasks = self._spark.parallelize(blocks, len(blocks)).map(lambda block: part_of(share, carried.value, block))
            found: Part = tasks.treeReduce(lambda first, second: first.joined(second, shards))
            return found
        except Exception as error:  # py4j's own kinds
            raise _given_up(error) from error
        finally:
            carried.destroy()

    def _job(self, share: Share) -> list[Worked]:
        """One barrier stage."""
        group, workers = uuid.uuid4().hex, self.workers
        answers: list[list[Worked]] = []
        problems: list[Exception] = []

        def run() -> None:
            try:
                self._spark.setJobGroup(group, "hathi train", interruptOnCancel=True)
                tasks = self._spark.parallelize(range(workers), workers).barrier()
                answers.append(tasks.mapPartitions(lambda numbers: [_task(share)]).collect())
            except Exception as error:  # py4j's own kinds: handed to the thread that asked
                problems.append(error)

        thread = threading.Thread(target=run, name="spark training", daemon=True)
        thread.start()
        short = 0.0
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
            if thread.is_alive() and self._ways.stopping():
                self._spark.cancelJobGroup(group)
                raise Stopped
            short = short + LOOK_SECONDS if self._slots() < workers else 0.0
            if thread.is_alive() and short >= SHORT_SECONDS:
                self._spark.cancelJobGroup(group)
                thread.join(SHORT_SECONDS)
                raise TemporaryError("executors are missing", f"{workers} are wanted, {self._slots()} are there", HINT)
        if problems:
            raise _given_up(problems[0]) from problems[0]
        return sorted(answers[0], key=lambda one: one.rank)

    def _slots(self) -> int:
        """Tasks that the executors which are there can compute at the same time."""
        if self._local:
            return int(str(self._spark.defaultParallelism))
        jvm: Any = self._spark._jsc.sc()
        return int(str(jvm.maxNumConcurrentTasks(jvm.resourceProfileManager().defaultResourceProfile())))


class OnDriver:
    """Rounds that executors compute; the driver has the weights and the history."""

    def __init__(self, spark: OnSpark, share: Share, local_steps: int) -> None:
        self._spark, self._share, self.local_steps = spark, share, local_steps

    def compute(self, one: Round) -> tuple[tree.Arrays, list[bytes]]:
        """Raises what an executor refuses, and TemporaryError."""
        found = self._spark.summed(self._share, one)
        if found.error is not None:
            raise found.error
        return found.sums[range(self._share.shards)], [found.told[first] for first in sorted(found.told)]


def _task(share: Share) -> Worked:
    context = BarrierTaskContext.get()
    hosts = tuple(info.address.rpartition(":")[0] for info in context.getTaskInfos())
    return work(share, Site(context.partitionId(), hosts, context.allGather))


def _given_up(error: Exception) -> TemporaryError:
    """A job that Spark gave up: which error its last task met, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = next((line for line in lines if "pipeline.errors" in line), "")
    if not cause:  # whoever was ended says nothing: Spark's own words stand between py4j's line and the stack
        says = itertools.takewhile(lambda line: not line.startswith("at "), lines[1:] or lines)
        cause = " ".join(says).rpartition("stage failure: ")[2]
    return TemporaryError("Spark gave up a stage of the training", cause[:400], HINT)


def until(iteration: int, interval: int, last: int) -> int:
    """Where the stage ends that begins here: at the next snapshot."""
    return min(last, (iteration // interval + 1) * interval) if interval else last


def all_of(stages: Sequence[Sequence[Worked]]) -> dict[tuple[str, int], int]:
    """How many examples each process has computed, by host and number."""
    found: dict[tuple[str, int], int] = {}
    for stage in stages:
        for one in stage:
            key = (one.host, one.process)
            found[key] = found.get(key, 0) + len(one.passes) * one.examples
    return found
