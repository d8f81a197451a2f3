"""Snapshots of trainings that nobody goes back to, and lost hints of those that are open."""

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


def plan_trainings(context: Context, now: float) -> Iterator[Deletion]:
    """What is to be forgotten of each training; its trouble is said once, and stops no other."""
    prefix = context.keys.jobs_data
    hints = frozenset(jobs.hinted(context))
    for name in jobs.every(context):
        if name not in hints:
            yield from _hint(context, name)
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


def _hint(context: Context, name: JobName) -> Iterator[Deletion]:
    keys = context.keys.job(name)
    there = {entry.key for entry in context.bucket.list(keys.top, folders=True)}
    if keys.spec in there and not there & {keys.out, keys.stop}:
        yield Deletion("bucket", "put_hint", keys.hint, "the training is open")
