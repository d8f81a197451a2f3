"""Snapshots of trainings that nobody goes back to, trainings that are over for long, lost hints of those that are open.

A training is forgotten whole, its spec first: without one nobody takes it up, and what is left is finished off.  Its
end goes last, so that at no instant it looks as if it were open.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from pipeline.errors import PermanentError, Stopped
from pipeline.ledger.layout import JobName
from pipeline.ledger.protocol import Context
from pipeline.operations.prune.deletion import Deletion
from pipeline.times import DAY
from pipeline.training import jobs
from pipeline.training.retention import forgettable

_OVER = "its training is over for long"


def plan_trainings(context: Context, now: float) -> Iterator[Deletion]:
    """What is to be forgotten of each training; its trouble is said once, and stops no other."""
    prefix = context.keys.jobs_data
    hints = frozenset(jobs.hinted(context))
    for name in jobs.every(context):
        context.safe_point()
        try:
            yield from _records(context, name, now - context.settings.prune.training_days * DAY, name in hints)
        except Stopped:
            raise
        except PermanentError as error:
            context.once(f"prune {name}", f"prune deletes nothing of {name}: {error}")
    listing = context.bucket.list(prefix)
    for text, entries in groupby(listing, key=lambda entry: entry.key.removeprefix(prefix).partition("/")[0]):
        context.safe_point()
        data = {entry.key: entry.modified for entry in entries}
        try:
            name = JobName.parse(text)
        except ValueError:
            context.once(f"prune {text}", f"Hathi leaves alone a key that is not its own: {next(iter(data))}")
            continue
        try:
            yield from _data(context, name, data, now - context.settings.prune.orphan_days * DAY)
        except Stopped:
            raise
        except PermanentError as error:
            context.once(f"prune {text}", f"prune deletes nothing of {text}: {error}")


def _data(context: Context, name: JobName, data: dict[str, float], old: float) -> Iterator[Deletion]:
    for key, why in forgettable(jobs.look(context, name, chain=True), data, old):
        yield Deletion("bucket", "delete", key, why)


def _records(context: Context, name: JobName, old: float, hinted: bool) -> Iterator[Deletion]:
    """The hint of a training that is open and has lost it; all of one that was at its end before `old`."""
    keys = context.keys.job(name)
    entries = list(context.bucket.list(keys.top))
    there = {entry.key for entry in entries}
    ends = [key for key in (keys.out, keys.stop) if key in there]
    if keys.spec in there and not ends:
        if not hinted:
            yield Deletion("bucket", "put_hint", keys.hint, "the training is open")
        return
    if max((entry.modified for entry in entries), default=old) >= old:
        return
    if keys.spec in there:
        if jobs.look(context, name, chain=True).unreadable:
            return
        yield Deletion("bucket", "delete", keys.spec, _OVER)
    for entry in context.bucket.list(keys.data):
        yield Deletion("bucket", "delete", entry.key, _OVER)
    for key in sorted(there - {keys.spec, *ends}, reverse=True):
        yield Deletion("bucket", "delete", key, _OVER)
    for key in [*ends, *([keys.hint] if hinted else [])]:
        yield Deletion("bucket", "delete", key, _OVER)
