"""What may be forgotten, and when (docs/protocol.md 10).  Nothing under an open shipment, ever.

Every deletion is a value before it is done, so that a dry run shows exactly what a run would do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline import manifest
from pipeline.compact.forgetting import covering, passed_tables
from pipeline.errors import FormatError, NotFound
from pipeline.layout import DELIVER, Root, ShipmentName, Task, seconds_of
from pipeline.manifest import Batch, Plan, Proposal, Result
from pipeline.runner import Context, exists, is_closed, readable, state_of
from pipeline.settings import FeatureSet
from pipeline.stages import index
from pipeline.stages.rounds import release_of
from pipeline.stages.snapshots import takes
from pipeline.state import ShipmentState

DAY = 86400.0
ALIVE_DAYS = 1.0
"""A beat so old is of a process that nobody asks for any more."""

Verb = Literal["delete", "delete_folder", "put_hint"]


@dataclass(frozen=True)
class Deletion:
    """One thing to forget (or a lost hint to put back)."""

    place: Literal["bucket", "lake"]
    verb: Verb
    key: str
    why: str
    away: str = ""
    """Of a folder: where it is renamed to before it is deleted."""


def perform(context: Context, one: Deletion) -> None:
    """Do it; doing it twice is harmless."""
    if one.verb == "put_hint":
        context.bucket.put(one.key, b"")
    elif one.place == "bucket":
        context.bucket.delete(one.key)
    else:
        assert context.lake is not None
        if one.verb == "delete":
            context.lake.delete(one.key)
            return
        # Renamed away first: an owner who wakes finds nothing rather than half.
        away = f"{one.away}/_gone-{context.process.nonce()}"
        try:
            context.lake.rename_new(one.key, away)
        except NotFound:
            return
        context.lake.delete_folder(away)


def plan_data(context: Context, now: float) -> Iterator[Deletion]:
    """Data and attempts of shipments that closed keep_days ago; what no manifest names."""
    keys, limits = context.keys, context.settings.prune
    for entry in context.bucket.list(keys.data, folders=True):
        context.safe_point()
        text = entry.key.removeprefix(keys.data).rstrip("/")
        try:
            name = ShipmentName.parse(text)
        except ValueError:
            context.once(entry.key, f"not ours, left alone: {entry.key}")
            continue
        state = state_of(context, name)
        if state.plan is None:
            yield from _orphans(context, name, now, frozenset(), "of a shipment that is not there")
        elif not is_closed(context, state):
            continue
        elif state.newest > now - limits.keep_days * DAY:
            yield from _orphans(context, name, now, _named(context, state), "no manifest names it")
        else:
            yield from _data(context, state)


def _orphans(context: Context, name: ShipmentName, now: float, named: frozenset[str], why: str) -> Iterator[Deletion]:
    old = now - context.settings.prune.orphan_days * DAY
    for entry in context.bucket.list(f"{context.keys.data}{name}/"):
        if entry.modified < old and entry.key not in named:
            yield Deletion("bucket", "delete", entry.key, why)


def _data(context: Context, state: ShipmentState) -> Iterator[Deletion]:
    kept = _held_data(context, state)
    for entry in context.bucket.list(f"{context.keys.data}{state.name}/"):
        if entry.key not in kept:
            yield Deletion("bucket", "delete", entry.key, "closed long ago")
    for task, tries in state.tries.items():
        for made in tries:
            if made.end is not None:
                yield Deletion("bucket", "delete", f"{made.key}.x", f"an attempt at {_what(task)} of a closed shipment")
            yield Deletion("bucket", "delete", made.key, f"an attempt at {_what(task)} of a closed shipment")


def _what(task: Task) -> str:
    return "delivery" if task == DELIVER else task.path.rpartition("/")[2]


def _held_data(context: Context, state: ShipmentState) -> frozenset[str]:
    """What a release of a held batch still needs: its refs, and the failures that say which of them are held."""
    assert state.plan is not None
    if state.out is None or not state.out.held:
        return frozenset()
    kept: set[str] = set()
    for number in _held_batches(context, state):
        release = release_of(state.name, state.plan, number)
        if not exists(context, context.keys.end(release)):
            batch = readable(context, context.keys.batch(state.name, number), Batch)
            kept |= {batch.data.key} if batch else set()
    if kept:
        files = (file for partner in state.out.partners.values() for file in partner.files)
        kept |= {file.key for file in files if file.name.startswith("failures/")}
    return frozenset(kept)


def _held_batches(context: Context, state: ShipmentState) -> Iterator[int]:
    assert state.out is not None
    fingerprint = state.out.fingerprint
    for number in sorted(state.results.get(fingerprint[:12], ())):
        result = readable(context, context.keys.result(state.name, fingerprint, number), Result)
        if result is not None and result.kind == "held":
            yield number


def _named(context: Context, state: ShipmentState) -> frozenset[str]:
    """Every data key that a manifest of the shipment names."""
    keys = context.keys
    found: set[str] = set()
    for number in state.batches:
        batch = readable(context, keys.batch(state.name, number), Batch)
        found |= {batch.data.key} if batch else set()
    for fingerprint, numbers in state.results.items():
        for number in numbers:
            result = readable(context, keys.result(state.name, fingerprint, number), Result)
            if result is not None:
                found |= {file.key for file in (result.features_file, result.failures_file) if file is not None}
    if state.out is not None:
        found |= {file.key for partner in state.out.partners.values() for file in partner.files}
        found |= {state.out.carried.key} if state.out.carried else set()
    return frozenset(found)


def plan_ledger(context: Context, now: float, is_named: Callable[[Plan], bool]) -> Iterator[Deletion]:
    """The record of shipments that closed ledger_days ago and whose snapshot no source names any more.

    Parents go before children and parts in order, the plan first within a shipment: a child that went first would
    make its parent look open again.
    """
    keys, limits = context.keys, context.settings.prune
    old = now - limits.ledger_days * DAY
    forgotten: set[str] = set()
    for entry in context.bucket.list(keys.commits, folders=True):
        context.safe_point()
        try:
            name = ShipmentName.parse(entry.key.removeprefix(keys.commits).rstrip("/"))
        except ValueError:
            context.once(entry.key, f"not ours, left alone: {entry.key}")
            continue
        if seconds_of(name.version) > old:
            return  # names sort by version: nothing behind it is older
        state = state_of(context, name)
        if state.newest > old:
            continue
        if state.plan is not None:
            if not is_closed(context, state) or is_named(state.plan):
                continue
            if any(_stands(context, before, forgotten) for before in _before(name, state.plan)):
                continue
            if any(True for _ in context.bucket.list(f"{keys.data}{name}/")):
                continue  # its data goes first
            if _still_delivered(context, state):
                continue  # and its folders, which only `done` tells to be ours
        forgotten.add(str(name))
        yield from _ledger(context, name)


def _before(name: ShipmentName, plan: Plan) -> list[ShipmentName]:
    """The shipments that have to be forgotten before this one."""
    found = []
    if plan.kind in ("retry", "release", "drop") and plan.parent is not None:
        found.append(ShipmentName.parse(plan.parent))
    if name.part:
        found.append(
            ShipmentName.of(
                plan.lake,
                plan.snapshot_digest,
                plan.set,
                name.version,
                name.round,
                name.part - 1,
                name.generation,
                plan.salt,
            )
        )
    return found


def _stands(context: Context, name: ShipmentName, forgotten: set[str]) -> bool:
    return str(name) not in forgotten and exists(context, context.keys.plan(name))


def _still_delivered(context: Context, state: ShipmentState) -> bool:
    """Whether folders stand that lake_days or compacted_days will delete."""
    if context.settings.prune.least_lake_days is None or context.lake is None or state.done is None:
        return False
    return any(context.lake.stat(folder) is not None for folder in state.done.folders)


def _ledger(context: Context, name: ShipmentName) -> Iterator[Deletion]:
    plan = context.keys.plan(name)
    why = "the record of a shipment closed long ago"
    yield Deletion("bucket", "delete", plan, why)
    for entry in context.bucket.list(context.keys.shipment(name)):
        if entry.key != plan:
            yield Deletion("bucket", "delete", entry.key, why)
    yield Deletion("bucket", "delete", context.keys.gone_hint(name), why)


def plan_hints(context: Context, now: float) -> Iterator[Deletion]:
    """Beats of processes long gone, hints without a plan; and the hint of each open shipment that has lost it."""
    keys, limits = context.keys, context.settings.prune
    for entry in context.bucket.list(keys.alive_hints):
        if entry.modified < now - ALIVE_DAYS * DAY:
            yield Deletion("bucket", "delete", entry.key, "the beat of a process long gone")
    yield from _answered(context)
    hinted: set[str] = set()
    for entry in context.bucket.list(keys.open_hints):
        text = entry.key.rpartition("/")[2]
        hinted.add(text)
        if entry.modified < now - limits.orphan_days * DAY and not _planned(context, text):
            yield Deletion("bucket", "delete", entry.key, "a hint without a plan")
    for entry in context.bucket.list(keys.commits, folders=True):
        context.safe_point()
        text = entry.key.removeprefix(keys.commits).rstrip("/")
        if text in hinted or not _planned(context, text):
            continue
        state = state_of(context, ShipmentName.parse(text))
        if state.plan is not None and not is_closed(context, state):
            yield Deletion("bucket", "put_hint", keys.open_hint(state.plan.due, state.name), "an open shipment's hint")


def _answered(context: Context) -> Iterator[Deletion]:
    """Hints of held batches that were released or dropped, or of shipments that are forgotten."""
    keys = context.keys
    for entry in context.bucket.list(keys.held_hints):
        text, _, number = entry.key.removeprefix(keys.held_hints).rpartition(".")
        try:
            name, batch = ShipmentName.parse(text), int(number)
        except ValueError:
            continue
        plan = readable(context, keys.plan(name), Plan)
        if plan is None or exists(context, keys.end(release_of(name, plan, batch))):
            yield Deletion("bucket", "delete", entry.key, "a held batch that was answered")


def _planned(context: Context, text: str) -> bool:
    try:
        return exists(context, context.keys.plan(ShipmentName.parse(text)))
    except ValueError:
        return True  # not ours: left alone


def plan_lake(context: Context, feature_set: FeatureSet, now: float) -> Iterator[Deletion]:
    """Leftovers of deliveries that never appeared, and of the index's writers; old folders where lake_days is set."""
    lake = context.lake
    if lake is None or not takes(feature_set, context.lake_name):
        return
    root = Root(feature_set.root.strip("/"))
    old = now - context.settings.prune.orphan_days * DAY
    for entry in lake.list(f"{root.root}/_tmp/", folders=True):
        folder = entry.key.rstrip("/")
        own = lake.stat(folder)
        newest = max((one.modified for one in lake.list(entry.key)), default=own.modified / 1000 if own else old)
        if newest < old:
            why = "a delivery that never appeared"
            yield Deletion("lake", "delete_folder", folder, why, f"{root.root}/_tmp")
    try:
        version = index.read_index(lake, root).version
    except FormatError as error:
        context.once(root.index, str(error))
        return
    yield from _index_leftovers(context, root, version, old)
    yield from _old_folders(context, root, now)
    for folder in passed_tables(lake, root, index.read_index(lake, root), now):
        yield Deletion("lake", "delete_folder", folder, "a later table stands", f"{root.root}/_tmp")


def _index_leftovers(context: Context, root: Root, version: int, old: float) -> Iterator[Deletion]:
    assert context.lake is not None
    named: set[str] = set()
    for entry in context.lake.list(f"{root.proposals}/", folders=True):
        text = entry.key.rpartition("/")[2]
        if not text.isdigit():
            continue
        if int(text) > version:
            body = manifest.read(Proposal, context.lake.get(entry.key), entry.key)
            named.add(body.token)
        elif entry.modified < old:
            yield Deletion("lake", "delete", entry.key, "a proposal that the index has passed")
    for entry in context.lake.list(f"{root.proposals}/tokens/"):
        token = entry.key.rpartition("/")[2].removesuffix(".proposal")
        if entry.modified < old and token not in named:
            yield Deletion("lake", "delete", entry.key, "a token that no proposal names")


def _old_folders(context: Context, root: Root, now: float) -> Iterator[Deletion]:
    """Folders delivered lake_days (if compacted: compacted_days) and a day ago, unless the index names them."""
    limits = context.settings.prune
    if limits.least_lake_days is None:
        return
    assert context.lake is not None
    body = index.read_index(context.lake, root)
    is_covered = covering(context.lake, root, body)
    listed = {one.folder.partition("/")[0] for one in body.deliveries}
    for partner in body.partners.values():
        listed |= {file.partition("/")[0] for file in partner.files}
    for entry in context.lake.list(f"{root.root}/", folders=True):
        try:
            name = ShipmentName.parse(entry.key.removeprefix(f"{root.root}/").rstrip("/"))
        except ValueError:
            continue
        done = _done_at(context, name)
        if done is None or str(name) in listed:
            continue
        why = ""
        if limits.lake_days is not None and done < now - (limits.lake_days + 1) * DAY:
            why = f"delivered more than {limits.lake_days:g} days ago"
        elif limits.compacted_days is not None and done < now - (limits.compacted_days + 1) * DAY and is_covered(name):
            why = f"compacted, and delivered more than {limits.compacted_days:g} days ago"
        if why:
            yield Deletion("lake", "delete_folder", entry.key.rstrip("/"), why, f"{root.root}/_tmp")


def _done_at(context: Context, name: ShipmentName) -> float | None:
    done = readable(context, context.keys.done(name), manifest.Done)
    return None if done is None else seconds_of(done.at)


def plan_all(context: Context, now: float, is_named: Callable[[Plan], bool] | None) -> Iterator[Deletion]:
    """Everything that this host may forget.  is_named: whether a source still names a plan's snapshot; None where
    the sources cannot be seen (a compute box), and then the ledger stays."""
    yield from plan_data(context, now)
    for _, feature_set in sorted(context.settings.sets.items()):
        yield from plan_lake(context, feature_set, now)
    if is_named is not None:
        yield from plan_ledger(context, now, is_named)
    yield from plan_hints(context, now)
