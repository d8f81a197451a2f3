"""Beats of processes long gone, old words of boxes, hints of held batches that were answered, or without a plan."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.errors import FormatError
from pipeline.ledger.layout import ShipmentName, held_of
from pipeline.ledger.manifest import Plan
from pipeline.ledger.protocol import Context, body_at, exists, open_hints
from pipeline.operations.prune.deletion import Deletion
from pipeline.stages.operator_requests import release_of
from pipeline.times import DAY

ALIVE_DAYS = 1.0
"""A beat so old is of a process that nobody asks for any more."""


def hinted(context: Context) -> frozenset[ShipmentName]:
    """Shipments whose hint is there."""
    hints = open_hints(context)
    return frozenset((*hints.due, *hints.later))


def plan_hints(context: Context, now: float) -> Iterator[Deletion]:
    """Costs what is open: a request for each old hint and for each held batch."""
    keys = context.keys
    for entry in context.bucket.list(keys.alive_hints):
        if entry.key != keys.estop and entry.modified < now - ALIVE_DAYS * DAY:
            yield Deletion("bucket", "delete", entry.key, "the process of this beat ended long ago")
    yield from _answered(context)
    for entry in context.bucket.list(keys.refused_hints):
        if entry.modified < now - context.settings.prune.orphan_days * DAY:
            yield Deletion("bucket", "delete", entry.key, "an old word of a box that leaves shipments alone")
    for entry in context.bucket.list(keys.open_hints):
        if entry.modified < now - context.settings.prune.orphan_days * DAY and not _planned(context, entry.key):
            yield Deletion("bucket", "delete", entry.key, "a hint without a plan")


def _answered(context: Context) -> Iterator[Deletion]:
    """Hints of held batches that were released or dropped, or of shipments that are forgotten."""
    keys = context.keys
    for entry in context.bucket.list(keys.held_hints):
        try:
            name, batch = held_of(entry.key.removeprefix(keys.held_hints))
        except ValueError:
            continue
        try:
            plan = body_at(context, keys.plan(name), Plan) if exists(context, keys.plan(name)) else None
        except FormatError as error:
            context.once(keys.plan(name), str(error))
            continue  # whoever can read it goes on with it
        if plan is None or exists(context, keys.end(release_of(name, plan, batch))):
            yield Deletion("bucket", "delete", entry.key, "a held batch that was answered")


def _planned(context: Context, hint: str) -> bool:
    try:
        return exists(context, context.keys.plan(ShipmentName.parse(hint.rpartition("/")[2])))
    except ValueError:
        return True  # not ours: left alone
