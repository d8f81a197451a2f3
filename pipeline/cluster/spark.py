"""compute and aggregate on Apache Spark: the driver plans with the same planner, a task runs the same runner.

A task publishes with the same put_new as a compute box, so speculative tasks, lost executors, stages that run again
and a driver that is killed and restarted give the same output once; boxes from cron work beside it on the same bucket.
Nothing is shuffled and nothing broadcast: a task's share of the plan is a few kilobytes, and nets are files that each
executor gets once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pyspark import SparkContext, SparkFiles, TaskContext
from pyspark.sql import SparkSession

from pipeline import __version__
from pipeline.amounts import counted
from pipeline.cluster import task as executor
from pipeline.cluster.assignment import deal
from pipeline.cluster.task import Loaded, Share, Worked
from pipeline.errors import ConfigError, NetError, PermanentError, PipelineError, Stopped, TemporaryError
from pipeline.ledger.protocol import Context
from pipeline.nets.preprocessing import with_stated
from pipeline.settings import FeatureSet, Settings, travelling
from pipeline.stages.compute import Served
from pipeline.stages.following import Asked, with_set
from pipeline.stages.opening import BatchTask
from pipeline.stages.performer import Merge, Merging
from pipeline.stages.publishing import Published

T = TypeVar("T")
SPARK_FILE = "spark-file:"
"""Before the name of a file that Spark has carried to the executors."""
LOOK_SECONDS = 1.0
_RAISED = re.compile(r"[A-Za-z]\w*(Error|Exception): ")  # as Python ends a trace
GPU = "gpu"
"""The name of the resource that spark.task.resource.gpu.amount asks for."""


@dataclass(frozen=True)
class Shape:
    """workers: tasks at the same time.  spread: of these, at the most so many work on one shipment (one host)."""

    workers: int
    spread: int

    @staticmethod
    def of(context: SparkContext, workers: int = 0, spread: int = 0) -> Shape:
        """0: as many workers as the cluster has slots; and a spread of 4, or of all where there are fewer."""
        workers = workers or context.defaultParallelism
        return Shape(workers, min(spread or 4, workers))


class Cluster:
    """A Performer, and the Served of its sets, over a Spark session."""

    def __init__(self, session: SparkSession, settings: Settings, shape: Shape) -> None:
        self._spark = session.sparkContext
        self._shape = shape
        fetch = settings.fetch.model_copy(update={"share": settings.fetch.share / shape.spread})
        self._carrying = Carrying(self._spark)
        self._settings = settings.model_copy(update={"fetch": fetch})
        self._carried = travelling(self._carrying.settings(self._settings))
        self._promoted: dict[Asked, str] = {}
        """The settings that travel, of sets with the files of a promotion."""

    def serve(self, asked: Asked, feature_set: FeatureSet) -> Served:
        """A set as an executor has loaded it.  Raises ConfigError or NetError."""
        if asked.number:
            mine = with_set(self._settings, asked.set, feature_set)
            self._promoted[asked] = travelling(self._carrying.settings(mine))
        carried, name = self._promoted.get(asked, self._carried), asked.set
        driver = __version__
        (found,) = self._run([name], lambda name: executor.look(here(carried), name, device(), driver))
        if isinstance(found, PipelineError):
            raise found
        return _Elsewhere(found)

    def compute(
        self, context: Context, served: Served, tasks: Sequence[BatchTask], wanted: Callable[[], bool]
    ) -> Iterator[Published | None]:
        if not tasks or not wanted():
            return
        seconds = context.settings.compute.max_run_seconds
        hands = deal(tasks, self._shape.workers, self._shape.spread)
        carried = self._promoted.get(tasks[0].by, self._carried)
        shares = [Share("", context.lake_name, tasks[0].set, hand, seconds) for hand in hands]
        error: PipelineError | None = None
        for worked in self._run(shares, lambda share: _work(carried, share), context.stopping, context.say):
            for text in worked.said:
                context.say(text)
            yield from worked.published
            error = error or worked.error
        if error is not None:
            raise error

    def aggregate(self, context: Context, merges: Sequence[Merging], wanted: Callable[[], bool]) -> Iterator[Merge]:
        if not merges or not wanted():
            return
        carried, lake = self._carried, context.lake_name
        do = partial(_merge, carried, lake)
        for done, said in self._run(merges, do, context.stopping, context.say):
            for text in said:
                context.say(text)
            yield done

    def _run(
        self,
        values: Sequence[Any],
        do: Callable[[Any], T],
        stopping: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda text: None,
    ) -> list[T]:
        """One Spark task a value.  Raises Stopped when asked to end; TemporaryError when Spark gave the job up.

        say: told of tasks that Spark began a second time beside the first, which it found slow.
        """
        group = uuid.uuid4().hex
        answers: list[list[T]] = []
        problems: list[Exception] = []

        def job() -> None:
            try:
                self._spark.setJobGroup(group, "hathi", interruptOnCancel=True)
                shares = self._spark.parallelize(values, len(values))
                answers.append(shares.map(do).collect())
            except Exception as error:  # py4j's own kinds: handed to the thread that asked
                problems.append(error)

        thread = threading.Thread(target=job, name="spark job", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
            if thread.is_alive() and stopping():
                self._spark.cancelJobGroup(group)
                raise Stopped
        if speculative := self._speculative(group):
            ran = counted(speculative, "speculative task")
            say(f"Spark ran {ran} beside slow ones; of a batch, what is published first counts")
        if problems:
            kept = "finished batches are kept; Hathi plans the other batches again"
            raise given_up(problems[0], kept) from problems[0]
        return answers[0]

    def _speculative(self, group: str) -> int:
        """How many of a job's tasks were speculative, by Spark's own store of stages."""
        store, status = self._spark._jsc.sc().statusStore(), self._spark.statusTracker()
        found = 0
        for job in status.getJobIdsForGroup(group):
            for stage in info.stageIds if (info := status.getJobInfo(job)) else ():
                summary = store.speculationSummary(stage, 0)
                found += summary.get().numTasks() if summary.isDefined() else 0
        return found


@contextlib.contextmanager
def open_session(master: str | None) -> Iterator[SparkSession]:
    """A session as spark-submit or the master says, ended afterwards."""
    builder = SparkSession.builder.appName("hathi")
    session = (builder.master(master) if master else builder).getOrCreate()
    try:
        yield session
    finally:
        session.stop()


@contextlib.contextmanager
def open_cluster(settings: Settings, master: str | None, workers: int, spread: int) -> Iterator[Cluster]:
    """A cluster over a session of its own."""
    with open_session(master) as session:
        yield Cluster(session, settings, Shape.of(session.sparkContext, workers, spread))


class _Elsewhere:
    """A set that executors serve: the driver knows what it is, and computes nothing."""

    def __init__(self, loaded: Loaded) -> None:
        self.fingerprint = loaded.fingerprint
        self.engine = loaded.engine
        self.preprocessing = loaded.preprocessing
        self.paced: Mapping[str, str] = {}  # each executor's log says what holds it back

    def window(self, groups: Any, open_batch: Any, wanted: Any) -> Any:
        raise PermanentError(
            "Spark's driver was asked to compute features",
            "only executors compute them",
            "this is a bug in Hathi: please report it",
        )

    def alone(self, task: Any, refs: Any) -> Any:
        raise PermanentError(
            "Spark's driver was asked to compute features",
            "only executors compute them",
            "this is a bug in Hathi: please report it",
        )


def _again() -> bool:
    """Whether Spark had this task tried before, or has it tried beside us."""
    context = TaskContext.get()
    return context is not None and context.attemptNumber() > 0


def _merge(carried: str, lake: str, one: Merging) -> tuple[Merge, tuple[str, ...]]:
    return executor.merge(here(carried), lake, one, again=_again())


def _work(carried: str, share: Share) -> Worked:
    mine = Share(here(carried), share.lake, share.set, share.tasks, share.seconds)
    return executor.work(mine, device(), again=_again())


def given_up(error: Exception, hint: str) -> PipelineError:
    """A job that Spark gave up: which error its last task met, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = next((line for line in lines if "Lost task" in line or "ExecutorLost" in line), lines[0] if lines else "")
    raised = next((line for line in lines if _RAISED.match(line)), "")
    return TemporaryError("Spark gave up a job", "; ".join(filter(None, [raised[:200], cause[:400]])), hint, 5.0)


def device() -> str:
    """The GPU that Spark gave this task, as CUDA_VISIBLE_DEVICES wants it; empty without one."""
    context = TaskContext.get()
    found = context.resources().get(GPU) if context is not None else None
    return ",".join(found.addresses) if found is not None else ""


class Carrying:
    """Files that Spark carries to the executors, each as it is now, under a name that tells its content.

    An executor that starts later gets the same bytes, whatever has become of the file since; and Spark, which never
    carries two files of one name, carries another content.
    """

    def __init__(self, spark: SparkContext) -> None:
        self._spark = spark
        self._copies = tempfile.TemporaryDirectory(prefix="hathi-spark-")
        weakref.finalize(spark, self._copies.cleanup)  # Spark serves them for as long as it lives

    def settings(self, settings: Settings) -> Settings:
        """The settings with the names of what is carried in the place of each set's files."""
        sets = {}
        for name, one in settings.sets.items():
            with contextlib.suppress(ConfigError, NetError):  # who loads the set there says so
                one = with_stated(one)  # a file that says it lies beside the net here alone
            if one.model is not None:
                sets[name] = one  # carried by the promotion that work asks for
                continue
            changes: dict[str, object] = {"net": self._carry(one.net)}
            if one.weights is not None:
                changes["weights"] = self._carry(one.weights)
            if isinstance(one.preprocess.mean, str):
                changes["preprocess"] = one.preprocess.model_copy(update={"mean": self._carry(one.preprocess.mean)})
            sets[name] = one.model_copy(update=changes)
        return settings.model_copy(update={"sets": sets})

    def _carry(self, path: str) -> str:
        """What is no file (`hog`) stays as it is."""
        file = Path(path)
        if not file.is_file():
            return path
        if file.suffix == ".onnx":
            from pipeline.nets.onnx.source import OnnxSource

            source = OnnxSource(file)
            names = {location: self._copied(beside) for location, beside in source.beside().items()}
            if names:  # its other files stand beside it there too, under the names that they are carried by
                with tempfile.TemporaryDirectory(dir=self._copies.name) as folder:
                    renamed = Path(folder) / file.name
                    renamed.write_bytes(source.renamed(names))
                    return SPARK_FILE + self._copied(renamed)
        return SPARK_FILE + self._copied(file)

    def _copied(self, file: Path) -> str:
        """The name by which the file is carried."""
        folder = Path(self._copies.name)
        copy = folder / "copy"
        shutil.copyfile(file, copy)
        with copy.open("rb") as content:
            name = f"{hashlib.file_digest(content, 'sha256').hexdigest()[:16]}-{file.name}"
        if name in {carried.rpartition("/")[2] for carried in self._spark.listFiles}:  # by us, or by one before us
            copy.unlink()
        else:
            copy.rename(folder / name)
            self._spark.addFile((folder / name).as_uri())
        return name


def here(carried: str) -> str:
    """Settings as they travelled, with the paths of this worker."""
    root = os.path.abspath(SparkFiles.getRootDirectory())  # relative on executors
    return carried.replace(f'"{SPARK_FILE}', f'"{root}/')
