"""One attempt at a training: claim it, go on from where the chain is, and commit snapshot after snapshot.

What computes stands behind a `Trainer`.  The files of a snapshot are uploaded before the key that names them is put.
The first one of an iteration wins.  Whoever loses reads the winner's: where the bytes are his own he goes on, and else
he begins again from the winner's files.  So two processes at one training, a frozen one that wakes and a kill at any
instant all leave one chain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.amounts import counted
from pipeline.errors import LawBroken, NotFound, PipelineError, Stopped, TemporaryError
from pipeline.ledger.data import Damaged, download, load_data
from pipeline.ledger.layout import JobKeys, JobName, version_of
from pipeline.ledger.manifest import Attempt
from pipeline.ledger.protocol import Context, commit, end_by, exists
from pipeline.ledger.state import resting
from pipeline.ledger.trainings import JobAttemptEnd, JobFile, JobOut, JobSnapshot, JobSpec, Reached
from pipeline.training.jobs import close, look
from pipeline.training.state import Job, parent_of
from pipeline.training.trainer import Done, Hopeless, Left, Made, Trainer

STOP_SECONDS = 2.0
"""So often a process that trains looks for a person's stop."""


@dataclass(frozen=True)
class Task:
    """An attempt to make.  failed: none is made any more, and why; the training ends so."""

    name: JobName
    spec: JobSpec
    number: int
    failed: str = ""


@dataclass(frozen=True)
class Limits:
    """Attempts since the newest snapshot after which a training fails."""

    strikes: int
    lost: int


def limits_of(context: Context) -> Limits:
    """As for a batch that runs alone."""
    return Limits(context.settings.compute.strikes_alone, context.settings.compute.lost_alone)


def plan(job: Job, alive: frozenset[str], limits: Limits, now: float) -> Task | None:
    """What there is to do for a training; None: nothing now.  alive: other processes.  now: the store's time."""
    if job.spec is None or job.unreadable or job.closed:
        return None
    known = job.since_progress(alive)
    if known.live:
        return None
    if known.strikes >= limits.strikes or known.lost >= limits.lost:
        newest = job.newest
        cause = (
            f"since iteration {newest.iteration if newest else 0} it failed {counted(known.strikes, 'time')} and lost "
            f"its process {counted(known.lost, 'time')}"
        )
        return Task(job.name, job.spec, known.next_number, f"{cause}: {known.cause}" if known.cause else cause)
    return None if resting(job.recent, now) else Task(job.name, job.spec, known.next_number)


def perform(context: Context, task: Task, trainer: Trainer) -> Job | None:
    """One attempt, up to its end; None: somebody else makes it.  Raises Stopped, and what the trainer raises."""
    attempt = _Attempt(context, task, trainer)
    if task.failed:
        attempt.fail(Hopeless(_iteration(look(context, task.name)), task.failed))
        return attempt.closed()
    body = Attempt(process=context.process.name, at=attempt.at())
    if not commit(context, attempt.keys.attempt(task.number), body)[0]:
        return None
    try:
        attempt.run()
        return attempt.closed()
    except BaseException as error:
        attempt.give_up(JobAttemptEnd.model_validate(end_by(error).model_dump()))
        raise
    finally:
        trainer.close()


def _iteration(job: Job) -> int:
    return job.iterations[-1] if job.iterations else 0


@dataclass(frozen=True)
class _Stands:
    """What stands in the bucket, as a trainer reads it."""

    context: Context
    reached: Reached

    @property
    def iteration(self) -> int:
        return self.reached.iteration

    def names(self) -> tuple[str, ...]:
        return tuple(file.name for file in self.reached.files)

    def content(self, name: str) -> bytes:
        return load_data(self.context, self._file(name))

    def save(self, name: str, path: Path) -> None:
        download(self.context, self._file(name), path)

    def _file(self, name: str) -> JobFile:
        found = next((file for file in self.reached.files if file.name == name), None)
        if found is None:
            raise NotFound(f"the snapshot of iteration {self.iteration} has no file {name}")
        return found


class _Attempt:
    """An attempt that is claimed.  link: the last link of the chain, as it stands there; rows: made since."""

    def __init__(self, context: Context, task: Task, trainer: Trainer) -> None:
        self._context, self._task, self._trainer = context, task, trainer
        self.keys: JobKeys = context.keys.job(task.name)
        self._link: Reached | None = None
        self._rows: tuple[str, ...] = ()
        self._looked = float("-inf")
        self._ended = False
        self._stop = False

    def at(self) -> str:
        return version_of(self._context.process.clock.now())

    def run(self) -> None:
        """Until the training is at its end, or somebody wants it to end."""
        if not self._begin():
            return
        while True:
            got = self._trainer.next(self._wanted)
            if isinstance(got, Made):
                if not self._publish(got) and not self._begin():
                    return
            elif isinstance(got, Left):
                return self._leave(got)
            elif isinstance(got, Hopeless):
                return self.fail(got)
            else:
                return self._finish(got)

    def closed(self) -> Job:
        """The training as it is now; its hint is gone where it is closed."""
        job = look(self._context, self._task.name)
        close(self._context, job)
        return job

    def give_up(self, end: JobAttemptEnd) -> None:
        """Best effort: an attempt whose end cannot be written just counts as lost."""
        if self._ended:
            return
        self._ended = True
        try:
            commit(self._context, self.keys.attempt_end(self._task.number), end)
        except PipelineError as error:
            self._context.say(f"This process could not say that it ends its work on {self._task.name}: {error}")

    def fail(self, got: Hopeless) -> None:
        """The training ends without a model."""
        body = JobOut(kind="failed", iteration=got.iteration, cause=got.cause[:2000],
                      predictions=self._uploaded(got.predictions), engine=got.computed.engine, cpu=got.computed.cpu,
                      process=self._context.process.name, at=self.at())  # fmt: skip
        commit(self._context, self.keys.out, body)
        self._ended = True

    def _finish(self, got: Done) -> None:
        link = self._link
        if link is None or link.iteration != self._task.spec.max_iter:
            raise LawBroken(
                f"the training {self._task.name} ended at iteration {link.iteration if link else 0}",
                f"its last snapshot is to be of iteration {self._task.spec.max_iter}",
                "nothing was published; this is a bug in Hathi: please report it",
            )
        body = JobOut(
            kind="model", iteration=link.iteration, snapshot=parent_of(link), files=link.files, rows=got.rows,
            predictions=self._uploaded(got.predictions), engine=got.computed.engine, cpu=got.computed.cpu,
            process=self._context.process.name, at=self.at(),
        )  # fmt: skip
        commit(self._context, self.keys.out, body)
        self._ended = True

    def _wanted(self) -> bool:
        """Whether to go on: no ESTOP, no signal, and no stop of a person."""
        context = self._context
        if context.stopping():
            return False
        now = context.process.clock.monotonic()
        if not self._stop and now - self._looked >= STOP_SECONDS:
            self._looked = now
            try:
                self._stop = exists(context, self.keys.stop)
            except TemporaryError as error:
                context.once(f"{self._task.name} stop", f"the bucket does not say whether a person ends it: {error}")
        return not self._stop

    def _leave(self, got: Left) -> None:
        """Ends in good order: what a person ends needs no parting; anybody goes on from one else."""
        if self._stop:
            self.give_up(JobAttemptEnd(kind="abandoned", cause="a person ended the training"))
            return
        parting = None
        if got.made is not None and (self._link is None or got.made.iteration > self._link.iteration):
            parting = self._reached(got.made)
        self.give_up(JobAttemptEnd(kind="abandoned", cause="the run was stopped", parting=parting))
        raise Stopped

    def _begin(self) -> bool:
        """Goes on from where the training is now; False: there is nothing to go on with."""
        gone: dict[str, PipelineError] = {}
        while True:
            job = look(self._context, self._task.name)
            if job.closed or job.unreadable:
                self.give_up(JobAttemptEnd(kind="abandoned", cause="the training is at its end"))
                return False
            # Prune deletes what is far behind the newest, and a parting is nothing that anybody needs.
            start = job.start if _digest(job.start) not in gone else job.newest
            if _digest(start) in gone:
                raise gone[_digest(start)]
            try:
                self._trainer.begin(_Stands(self._context, start) if start is not None else None)
            except (NotFound, Damaged) as error:
                gone[_digest(start)] = error
                continue
            self._link = job.newest
            self._rows = start.rows if start is not None and start is not job.newest else ()
            return True

    def _publish(self, made: Made) -> bool:
        """Commits a link; False: another one stands there, or more, and the trainer has to go on from that."""
        if not self._task.spec.due(made.iteration):
            raise LawBroken(
                f"the training {self._task.name} wrote a snapshot of iteration {made.iteration}",
                f"its snapshots are of every {self._task.spec.every} iterations",
                "nothing was published; this is a bug in Hathi: please report it",
            )
        job = look(self._context, self._task.name)
        newest = job.newest
        if job.closed or job.unreadable:
            return False
        if newest is not None and (newest.iteration >= made.iteration or parent_of(newest) != parent_of(self._link)):
            return newest.iteration == made.iteration and self._goes_on(newest, _content(made))
        body = self._reached(made)
        mine = JobSnapshot(
            iteration=body.iteration, parent=body.parent, files=body.files, rows=body.rows,
            process=self._context.process.name, attempt=self._task.number, at=self.at(),
        )  # fmt: skip
        _, stands = commit(self._context, self.keys.snapshot(made.iteration), mine)
        named = {file.key for file in stands.files}
        for file in mine.files:
            if file.key not in named:
                self._context.bucket.delete(file.key)
        return self._goes_on(stands, mine.content)

    def _goes_on(self, stands: JobSnapshot, mine: tuple[tuple[str, str], ...]) -> bool:
        """Whether what stands there holds our own bytes, and the trainer needs nothing else."""
        if stands.content != mine:
            return False
        self._link, self._rows = stands, ()
        return True

    def _reached(self, made: Made) -> Reached:
        """The files, uploaded; named by nobody yet."""
        rows = (*self._rows, *made.rows)
        files = self._uploaded(made.files)
        return Reached(iteration=made.iteration, parent=parent_of(self._link), files=files, rows=rows)

    def _uploaded(self, contents: Mapping[str, bytes | Path]) -> tuple[JobFile, ...]:
        nonce = self._context.process.nonce()
        files = []
        for name, content in sorted(contents.items()):
            key = self.keys.file(nonce, name)
            self._context.bucket.put(key, content)
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            files.append(JobFile(name=name, key=key, size=size, sha256=_sha256(content)))
        return tuple(files)


def _digest(reached: Reached | None) -> str:
    return reached.digest() if reached is not None else ""


def _content(made: Made) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, _sha256(content)) for name, content in made.files.items()))


def _sha256(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
