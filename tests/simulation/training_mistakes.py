"""Mistakes in trainings that look harmless, planted one at a time: the simulation has to find each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from pipeline.ledger import protocol
from pipeline.ledger.bodies import Body
from pipeline.ledger.protocol import Context
from pipeline.ledger.state import Try
from pipeline.ledger.trainings import JobSnapshot, JobSpec, Reached
from pipeline.training import attempt, jobs, retention
from pipeline.training.state import Job
from pipeline.training.trainer import Left, Made
from tests.simulation.mistakes import not_reading_back_after_unknown

Plant = Callable[[pytest.MonkeyPatch], None]
Attempting = attempt._Attempt


def who_loses_goes_on_from_his_own_bytes(patch: pytest.MonkeyPatch) -> None:
    """A snapshot of this iteration stands, so the training goes on; whose bits they are is not looked at."""

    def goes_on(self: Attempting, stands: JobSnapshot, mine: object) -> bool:
        self._link, self._rows = stands, ()
        return True

    patch.setattr(Attempting, "_goes_on", goes_on)


def the_key_of_a_snapshot_before_its_data(patch: pytest.MonkeyPatch) -> None:
    """Who goes on from the newest key that is listed finds no data there."""
    real, real_commit = Attempting._reached, protocol.commit
    late: list[tuple[str, bytes]] = []

    class Later:
        def put(self, key: str, content: bytes) -> None:
            late.append((key, content))

    def reached(self: Attempting, made: Made) -> Reached:
        context = self._context
        self._context = replace(context, bucket=Later())  # type: ignore[arg-type]
        try:
            return real(self, made)
        finally:
            self._context = context

    def commit(context: Context, key: str, body: Body) -> tuple[bool, Body]:
        found = real_commit(context, key, body)
        while late:
            context.bucket.put(*late.pop())
        return found

    patch.setattr(Attempting, "_reached", reached)
    patch.setattr(attempt, "commit", commit)


def prune_keeps_the_best_snapshot_of_a_training_that_is_over(patch: pytest.MonkeyPatch) -> None:
    """The last one is nothing to go on from any more; but it is what `out` names."""
    real = retention.kept

    def kept(job: Job) -> frozenset[str]:
        best = retention.best_of(job)
        if job.out is None or best is None:
            return real(job)
        return frozenset(file.key for file in job.snapshots[best].files)

    patch.setattr(retention, "kept", kept)


def prune_keeps_one_snapshot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(retention, "LAST", 1)


def prune_deletes_what_nobody_names_yet(patch: pytest.MonkeyPatch) -> None:
    """Data of an open training that no snapshot names is on its way."""
    real = retention.forgettable

    def forgettable(job: Job, data: Mapping[str, float], old: float) -> object:
        named = {file.key for one in job.snapshots.values() for file in one.files}
        yield from real(job, data, old)
        yield from ((key, "nobody names it") for key in data if key not in named and key not in retention.kept(job))

    from pipeline.operations.prune import trainings

    patch.setattr(trainings, "forgettable", forgettable)


def metrics_go_on_where_they_were(patch: pytest.MonkeyPatch) -> None:
    """What was shown was shown: a process that begins again keeps the rows that it has."""
    real = Attempting._begin
    rows: dict[int, tuple[str, ...]] = {}
    real_publish = Attempting._publish

    def publish(self: Attempting, made: Made) -> bool:
        rows[id(self)] = made.rows
        return real_publish(self, made)

    def begin(self: Attempting) -> bool:
        found = real(self)
        self._rows = (*rows.get(id(self), ()), *self._rows)
        return found

    patch.setattr(Attempting, "_publish", publish)
    patch.setattr(Attempting, "_begin", begin)


def rows_of_a_parting_are_left_behind(patch: pytest.MonkeyPatch) -> None:
    real = Attempting._begin

    def begin(self: Attempting) -> bool:
        found = real(self)
        self._rows = ()
        return found

    patch.setattr(Attempting, "_begin", begin)


def a_parting_is_a_link(patch: pytest.MonkeyPatch) -> None:
    """Who is asked to end puts a snapshot of his iteration; another one may be past it already."""
    due, leave = JobSpec.due, Attempting._leave

    def left(self: Attempting, got: Left) -> None:
        if got.made is not None and not self._stop:
            patch.setattr(JobSpec, "due", lambda self, iteration: True)
            self._publish(got.made)
            patch.setattr(JobSpec, "due", due)
        leave(self, Left())

    patch.setattr(Attempting, "_leave", left)


def a_stop_is_looked_for_at_snapshots(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Attempting, "_wanted", lambda self: not self._context.stopping())


def a_stop_ends_only_who_trains_just_now(patch: pytest.MonkeyPatch) -> None:
    """Who comes later goes on: the stop was meant for another attempt."""

    def closed(self: Job) -> bool:
        return self.out is not None

    patch.setattr(Job, "closed", property(closed))


def what_was_lost_counts_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A long training loses more processes than it may without any that brought nothing."""

    def recent(self: Job) -> tuple[Try, ...]:
        return self.tries

    patch.setattr(Job, "recent", property(recent))


def beats_are_judged_by_the_local_clock(patch: pytest.MonkeyPatch) -> None:
    """This host's clock is a month behind: whoever died at a training lives for ever."""
    real = protocol.beats
    patch.setattr(protocol, "beats", lambda context, now: real(context, now - 30 * 86400.0))


def the_hint_goes_with_the_last_snapshot(patch: pytest.MonkeyPatch) -> None:
    """The chain is at its end, so nobody needs to look; but the model is not named yet. Prune trusts that as well."""
    real = Attempting._goes_on

    def goes_on(self: Attempting, stands: JobSnapshot, mine: tuple[tuple[str, str], ...]) -> bool:
        found = real(self, stands, mine)
        if stands.iteration == self._task.spec.max_iter:
            self._context.bucket.delete(self.keys.hint)
        return found

    from pipeline.operations.prune import trainings

    patch.setattr(Attempting, "_goes_on", goes_on)
    patch.setattr(trainings, "_records", lambda *words: ())
    patch.setattr(jobs, "submit", _once(jobs.submit))


def _once(real: Callable[[Context, JobSpec], object]) -> Callable[[Context, JobSpec], object]:
    def submit(context: Context, spec: JobSpec) -> object:
        return None if protocol.exists(context, context.keys.job(spec.name()).spec) else real(context, spec)

    return submit


MISTAKES: list[Plant] = [
    who_loses_goes_on_from_his_own_bytes,
    the_key_of_a_snapshot_before_its_data,
    prune_keeps_the_best_snapshot_of_a_training_that_is_over,
    prune_keeps_one_snapshot,
    prune_deletes_what_nobody_names_yet,
    metrics_go_on_where_they_were,
    rows_of_a_parting_are_left_behind,
    a_parting_is_a_link,
    a_stop_is_looked_for_at_snapshots,
    a_stop_ends_only_who_trains_just_now,
    what_was_lost_counts_for_ever,
    beats_are_judged_by_the_local_clock,
    not_reading_back_after_unknown,
    the_hint_goes_with_the_last_snapshot,
]
