"""Hints and data that belong to no shipment of the ledger."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.ledger.layout import ARCHIVE, FIRST_DUE, FORGET, JOBS, MODELS, REUSE, ShipmentName, held_of, seconds_of
from pipeline.ledger.listing import named
from pipeline.ledger.protocol import Context, exists
from pipeline.operations.verify.finding import Finding, Say
from pipeline.operations.verify.shipments import unnamed_data
from pipeline.times import DAY


def strays(say: Say, context: Context) -> Iterator[Finding]:
    """One finding for each thing, or for each shipment's data."""
    yield from _tops(say, context)
    yield from _data(say, context)
    yield from _open_hints(say, context)
    yield from _held_hints(say, context)


def _tops(say: Say, context: Context) -> Iterator[Finding]:
    lake = context.lake_name
    known = {f"{lake}/{top}/" for top in (ARCHIVE, "c", "d", FORGET, "h", JOBS, MODELS, REUSE)}
    for entry in context.bucket.list(f"{lake}/", folders=True):
        if entry.key not in known:
            yield say("not_ours", entry.key, "Hathi writes only a/, c/, d/, f/, h/, j/, m/ and u/ there")


def _data(say: Say, context: Context) -> Iterator[Finding]:
    keys = context.keys
    for entry, name in named(context.bucket, keys.data):
        context.safe_point()
        if entry.key in (keys.archive_data, keys.jobs_data, keys.models_data):
            continue
        if name is None:
            yield say("not_ours", entry.key, "this is not the data of a shipment")
            continue
        if any(True for _ in context.bucket.list(keys.shipment(name))):
            continue
        listing = context.bucket.list(entry.key)
        there = {one.key: (one.size, one.modified) for one in listing}
        if there:
            yield unnamed_data(say, sorted(there), there, listing.now, context.settings.prune.orphan_days)


def _open_hints(say: Say, context: Context) -> Iterator[Finding]:
    keys = context.keys
    listing = context.bucket.list(keys.open_hints)
    old = listing.now - context.settings.prune.orphan_days * DAY
    for entry in listing:
        due, _, text = entry.key.removeprefix(keys.open_hints).partition("/")
        try:
            name = ShipmentName.parse(text)
            _ = due == FIRST_DUE or seconds_of(due)
        except ValueError:
            yield say("not_ours", entry.key, "this is not the hint of a shipment")
            continue
        if entry.modified < old and not exists(context, keys.plan(name)):
            yield say(
                "hint_without_plan",
                entry.key,
                f"it has no plan, and is older than {context.settings.prune.orphan_days:g} days",
            )


def _held_hints(say: Say, context: Context) -> Iterator[Finding]:
    prefix = context.keys.held_hints
    for entry in context.bucket.list(prefix):
        try:
            held_of(entry.key.removeprefix(prefix))
        except ValueError:
            yield say("not_ours", entry.key, "this is not the hint of a held batch")
