"""Leftovers on the lake, and old folders where lake_days is set."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.errors import FormatError, PermanentError, Stopped
from pipeline.ledger.bodies import read_body
from pipeline.ledger.deliveries import Index, Proposal
from pipeline.ledger.layout import Root, ShipmentName, number_of, seconds_of
from pipeline.ledger.listing import named
from pipeline.ledger.manifest import Done
from pipeline.ledger.protocol import Context, readable
from pipeline.operations.prune.deletion import Deletion
from pipeline.settings import FeatureSet
from pipeline.stages import index
from pipeline.stages.compact.forgetting import covering, passed_tables
from pipeline.stages.snapshots import takes
from pipeline.stores.store import Lake
from pipeline.times import DAY


def plan_lake(context: Context, feature_set: FeatureSet, now: float) -> Iterator[Deletion]:
    """Leftovers of deliveries that never appeared, and of the index's writers; old folders where lake_days is set.

    What cannot be read of one kind of thing is said once, and stops no other.
    """
    lake = context.lake
    if lake is None or not takes(feature_set, context.lake_name):
        return
    root = Root(feature_set.folder)
    old = now - context.settings.prune.orphan_days * DAY
    yield from _one(context, root, _half_delivered(lake, root, old))
    try:
        body = index.read_index(lake, root)
    except FormatError as error:
        context.once(root.index, str(error))
        return
    yield from _one(context, root, _index_leftovers(context, lake, root, body.version, old))
    yield from _one(context, root, _old_folders(context, lake, root, body, now))
    yield from _one(context, root, _passed(lake, root, body, now))


def _passed(lake: Lake, root: Root, body: Index, now: float) -> Iterator[Deletion]:
    for folder in passed_tables(lake, root, body, now):
        yield Deletion("lake", "delete_folder", folder, "a later table stands", f"{root.root}/_tmp")


def _one(context: Context, root: Root, deletions: Iterator[Deletion]) -> Iterator[Deletion]:
    try:
        yield from deletions
    except Stopped:
        raise
    except PermanentError as error:
        context.once(f"prune {root.root} {error.message}", f"prune did not finish under {root.root}: {error}")


def _half_delivered(lake: Lake, root: Root, old: float) -> Iterator[Deletion]:
    for entry in lake.list(f"{root.root}/_tmp/", folders=True):
        if not entry.key.endswith("/"):
            continue  # a file: not of ours
        folder = entry.key.rstrip("/")
        own = lake.stat(folder)
        newest = max((one.modified for one in lake.list(entry.key)), default=own.modified / 1000 if own else old)
        if newest < old:
            yield Deletion("lake", "delete_folder", folder, "a delivery that was not finished", f"{root.root}/_tmp")


def _index_leftovers(context: Context, lake: Lake, root: Root, version: int, old: float) -> Iterator[Deletion]:
    named: set[str] = set()
    readable_ones = True
    for entry in lake.list(f"{root.proposals}/", folders=True):
        number = number_of(entry.key.rpartition("/")[2], 10)
        if number is None:
            continue
        if number > version:
            try:
                named.add(read_body(lake, Proposal, entry.key).token)
            except FormatError as error:
                context.once(entry.key, str(error))
                readable_ones = False  # whatever it names stays
        elif entry.modified < old:
            yield Deletion("lake", "delete", entry.key, "a proposal that the index has passed")
    for entry in lake.list(f"{root.proposals}/tokens/") if readable_ones else ():
        token = entry.key.rpartition("/")[2].removesuffix(".proposal")
        if entry.modified < old and token not in named:
            yield Deletion("lake", "delete", entry.key, "a token that no proposal names")


def _old_folders(context: Context, lake: Lake, root: Root, body: Index, now: float) -> Iterator[Deletion]:
    """Folders delivered lake_days (if compacted: compacted_days) and a day ago, unless the index names them."""
    limits = context.settings.prune
    if limits.least_lake_days is None:
        return
    is_covered = covering(lake, root, body)
    listed = {one.folder.partition("/")[0] for one in body.deliveries}
    for partner in body.partners.values():
        listed |= {file.partition("/")[0] for file in partner.files}
    for entry, name in named(lake, f"{root.root}/"):
        if name is None:
            continue
        # A version is never more than a day ahead of its delivery: what is young by its name costs no request.
        if str(name) in listed or seconds_of(name.version) - DAY > now - (limits.least_lake_days + 1) * DAY:
            continue
        done = _done_at(context, name)
        if done is None:
            continue
        why = ""
        if limits.lake_days is not None and done < now - (limits.lake_days + 1) * DAY:
            why = f"delivered more than {limits.lake_days:g} days ago"
        elif limits.compacted_days is not None and done < now - (limits.compacted_days + 1) * DAY and is_covered(name):
            why = f"compacted, and delivered more than {limits.compacted_days:g} days ago"
        if why:
            yield Deletion("lake", "delete_folder", entry.key.rstrip("/"), why, f"{root.root}/_tmp")


def _done_at(context: Context, name: ShipmentName) -> float | None:
    done = readable(context, context.keys.done(name), Done)
    return None if done is None else seconds_of(done.at)
