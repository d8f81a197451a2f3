"""A training on Spark from its driver: stage after stage, and what the executors say meanwhile."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.amounts import counted
from pipeline.cluster.spark_training import OnSpark, Session, Ways, all_of, until
from pipeline.cluster.training_task import LOG, Worked
from pipeline.errors import Stopped, TemporaryError
from pipeline.training import job, prefix_lock, snapshot
from pipeline.training.job import Ended, Wanted
from pipeline.training.metrics import NAME as METRICS
from pipeline.training.sharing.processes import Share, share_of
from pipeline.training.surroundings import Ending

_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Watching:
    """What goes on around a training.  stopping: whether it is asked to end.  write: takes lines."""

    stopping: Callable[[], bool]
    write: Callable[[str], Any]


def train(session: Session, wanted: Wanted, executors: int, patience: float | None, watching: Watching) -> Ended:
    """To the end, or until it is asked to leave.  Raises what training raises."""
    share = shared(wanted, patience)
    stages: list[list[Worked]] = []
    with contextlib.ExitStack() as held:
        prefix_lock.take(held, job.beside(share.prefix, prefix_lock.NAME))
        said = held.enter_context(_followed(Path(share.folder, job.beside(share.prefix, LOG)), watching.write))
        try:
            for stage in stages_of(session, wanted, share, executors, watching):
                stages.append(stage)
        except Stopped:
            return Ended(Ending.LEFT, stages[-1][0].iteration if stages else 0, None)
        finally:
            said()
    for (host, process), examples in sorted(all_of(stages).items()):
        watching.write(f"hathi: process {process} on {host} computed {examples:,} examples\n")
    last = stages[-1][0]
    return Ended(Ending(last.ending), last.iteration, Path(last.model) if last.model else None, last.why)


def rows_of(wanted: Wanted) -> Iterator[dict[str, Any]]:
    """The rows of metrics that executor 0 has written.  Raises as `solver.read`."""
    path = job.beside(wanted.read().snapshots.prefix, METRICS)
    for line in path.read_text().splitlines() if path.exists() else ():
        yield json.loads(line)


def shared(wanted: Wanted, patience: float | None = None) -> Share:
    """What executors have to know.  Raises SolverError for a solver or a batch that is refused."""
    found = share_of(wanted)
    return replace(found, how={**found.how, "threads": wanted.how.threads or 1}, seconds=patience or found.seconds)


def stages_of(
    session: Session, wanted: Wanted, share: Share, executors: int, watching: Watching
) -> Iterator[list[Worked]]:
    """What the executors did, from one snapshot to the next, up to the end of the training.

    Raises ConfigError, what an executor refuses, Stopped when it is asked to end, and TemporaryError.
    """
    read = wanted.read()
    digest, places = job.digest(read, wanted.how), snapshot.ByPrefix(read.snapshots.prefix, read.snapshots.hdf5)
    last = read.max_iter if wanted.until is None else min(wanted.until, read.max_iter)

    def reached() -> int:
        found = snapshot.newest(places, digest)
        return found.iteration if found is not None else 0

    ways = Ways(watching.stopping, lambda says: watching.write(f"{says}\n"), reached)
    spark = OnSpark(session, executors, share.shards, ways)
    watching.write(f"hathi: {share.shards} shards on {counted(spark.workers, 'executor')}\n")
    at = 0 if share.again else reached()
    while True:
        found = spark.stage(replace(share, until=until(at, read.snapshots.interval, last)))
        yield found
        first = found[0]
        if Ending(first.ending) is Ending.DONE or first.iteration >= last:
            return
        if first.iteration <= at:
            raise TemporaryError("a stage has trained nothing", f"it stands at iteration {at}", "")
        at, share = first.iteration, replace(share, again=False, snapshot="")


@contextlib.contextmanager
def _followed(log: Path, write: Callable[[str], Any]) -> Iterator[Callable[[], None]]:
    """Says what executors append to the log from now on; the function says what is there by its call."""
    at = log.stat().st_size if log.exists() else 0
    over, lock = threading.Event(), threading.Lock()

    def look() -> None:
        nonlocal at
        with lock:
            if not log.exists():
                return
            with log.open("rb") as file:
                file.seek(at)
                content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            at += len(whole)
            if whole:
                write(whole.decode("utf-8", "replace"))

    def follow() -> None:
        while not over.wait(_LOOK_SECONDS):
            look()

    thread = threading.Thread(target=follow, name="log of the executors", daemon=True)
    thread.start()
    try:
        yield look
    finally:
        over.set()
        thread.join()
