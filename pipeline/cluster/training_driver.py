"""A training on Spark from its driver: stage after stage, and what the executors say meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.amounts import counted
from pipeline.cluster.following import Lines, Progress, Row, Rows, Show, following
from pipeline.cluster.spark_training import OnSpark, Session, Ways, all_of, until
from pipeline.cluster.training_task import LOG, Worked
from pipeline.errors import Stopped, TemporaryError
from pipeline.training import job, prefix_lock, snapshot
from pipeline.training.attempts_file import NAME as ATTEMPTS
from pipeline.training.attempts_file import AttemptsFile, Started
from pipeline.training.job import Ended, Wanted
from pipeline.training.metrics import NAME as METRICS
from pipeline.training.sharing.processes import Share, share_of
from pipeline.training.solver import Solver
from pipeline.training.surroundings import Ending

_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Watching:
    """What goes on around a training.  stopping: whether it is asked to end.  write: takes lines.

    row: takes each row of the metrics once.  show: takes each displayed iteration.
    """

    stopping: Callable[[], bool]
    write: Callable[[str], Any]
    row: Callable[[Row], Any] = lambda row: None
    show: Show = lambda read, now: None


def train(session: Session, wanted: Wanted, executors: int, patience: float | None, watching: Watching) -> Ended:
    """To the end, or until it is asked to leave.  Raises what training raises."""
    share, read = shared(wanted, patience), wanted.read()
    first = _first(read, wanted)
    progress = Progress(read, share.examples * read.update.iter_size * share.shards, first, watching.show)

    def take(row: Row) -> None:
        watching.row(row)
        progress.take(row)

    stages: list[list[Worked]] = []
    with contextlib.ExitStack() as held:
        prefix_lock.take(held, job.beside(share.prefix, prefix_lock.NAME))
        rows, lines = Rows(_beside(share, METRICS), first, take), Lines(_beside(share, LOG), watching.write)
        said = held.enter_context(following(lines.look, rows.look))
        attempts = AttemptsFile(_beside(share, ATTEMPTS), time.time, lambda says: watching.write(f"{says}\n"))
        started = Started(first, str(read.path.resolve()), f"Spark {session.version}", share.how["threads"], read.seed,
                          wanted.how.exact)  # fmt: skip
        with attempts.attempt(started, lambda: _iteration(stages, first)):
            try:
                for stage in stages_of(session, wanted, share, executors, watching):
                    stages.append(stage)
                last = stages[-1][0]
                ended = Ended(Ending(last.ending), last.iteration, Path(last.model) if last.model else None, last.why)
            except Stopped:
                ended = Ended(Ending.LEFT, _iteration(stages, first), None)
            finally:
                said()
        attempts.end(ended.iteration, ended.ending.value, ended.why)
    for (host, process), examples in sorted(all_of(stages).items()):
        watching.write(f"hathi: process {process} on {host} computed {examples:,} examples\n")
    return ended


def _beside(share: Share, name: str) -> Path:
    return Path(share.folder, job.beside(share.prefix, name))


def _iteration(stages: list[list[Worked]], first: int) -> int:
    return stages[-1][0].iteration if stages else first


def _first(read: Solver, wanted: Wanted) -> int:
    """The iteration from which it goes on."""
    if wanted.snapshot is not None:
        return snapshot.read_state(wanted.snapshot).iteration
    return 0 if wanted.again else _reached(read, wanted)


def _reached(read: Solver, wanted: Wanted) -> int:
    """The iteration of the newest whole snapshot of this training; 0: there is none."""
    places = snapshot.ByPrefix(read.snapshots.prefix, read.snapshots.hdf5)
    found = snapshot.newest(places, job.digest(read, wanted.how))
    return found.iteration if found is not None else 0


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
    last = read.max_iter if wanted.until is None else min(wanted.until, read.max_iter)
    ways = Ways(watching.stopping, lambda says: watching.write(f"{says}\n"), lambda: _reached(read, wanted))
    spark = OnSpark(session, executors, share.shards, ways)
    watching.write(f"hathi: {share.shards} shards on {counted(spark.workers, 'executor')}\n")
    at = 0 if share.again else ways.reached()
    while True:
        found = spark.stage(replace(share, until=until(at, read.snapshots.interval, last)))
        yield found
        first = found[0]
        if Ending(first.ending) is Ending.DONE or first.iteration >= last:
            return
        if first.iteration <= at:
            raise TemporaryError("a stage has trained nothing", f"it stands at iteration {at}", "")
        at, share = first.iteration, replace(share, again=False, snapshot="")
