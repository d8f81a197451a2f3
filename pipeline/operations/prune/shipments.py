"""The bucket's shipments one after the other: what is to be forgotten of each, and the hint of an open one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from pipeline.codec.delivered.forms import is_failures
from pipeline.errors import PermanentError, Stopped
from pipeline.ledger.layout import ARCHIVE, DELIVER, FIRST_DUE, JOBS, MODELS, ShipmentName, Task, seconds_of
from pipeline.ledger.manifest import Batch, Plan, Result
from pipeline.ledger.protocol import Context, exists, is_closed, readable, state_from
from pipeline.ledger.state import ShipmentState, is_work
from pipeline.operations.prune.deletion import Deletion
from pipeline.operations.prune.named import Kept
from pipeline.recent import Recent
from pipeline.stages.operator_requests import release_of
from pipeline.stores.store import Entry
from pipeline.times import DAY

WEEK = 7
_BEYOND = "0"
"""What comes right behind all names that begin with `<shipment>/`."""


@dataclass(frozen=True)
class Standing:
    """What the bucket has under one name of `c/` and of `d/`."""

    text: str
    """The name; a shipment's, or what is not ours."""
    records: tuple[Entry, ...]
    data: tuple[Entry, ...]

    @property
    def newest(self) -> float:
        """The newest time under `c/S/`, by the store's clock: closed since."""
        return max((entry.modified for entry in self.records), default=0.0)

    def rests(self, context: Context) -> frozenset[str]:
        """What follows `c/S/` in its keys."""
        top = f"{context.keys.commits}{self.text}/"
        return frozenset(entry.key.removeprefix(top) for entry in self.records)


def walk(context: Context, after: str = "") -> Iterator[Standing]:
    """Two listings side by side, in the order of names.  Memory: one shipment's keys.

    after: a name; what comes behind it is gone through.
    """
    keys = context.keys
    records = _grouped(context, keys.commits, after)
    data = _grouped(context, keys.data, after)
    one, other = next(records, None), next(data, None)
    while one is not None or other is not None:
        text = min((group[0] for group in (one, other) if group is not None), key=_order)
        mine = one[1] if one is not None and one[0] == text else ()
        theirs = other[1] if other is not None and other[0] == text else ()
        yield Standing(text, mine, theirs)
        one = next(records, None) if mine else one
        other = next(data, None) if theirs else other


def _order(text: str) -> bytes:
    """As the keys below it sort."""
    return f"{text}/".encode("utf-8", "surrogatepass")


def _grouped(context: Context, prefix: str, after: str) -> Iterator[tuple[str, tuple[Entry, ...]]]:
    others = (ARCHIVE, JOBS, MODELS) if prefix == context.keys.data else ()  # whose passes are others
    listing = context.bucket.list(prefix, after=f"{prefix}{after}{_BEYOND}" if after else "")
    for text, entries in groupby(listing, key=lambda entry: entry.key.removeprefix(prefix).partition("/")[0]):
        if text not in others:
            yield text, tuple(entries)


def plan_shipment(
    context: Context,
    one: Standing,
    now: float,
    kept: Kept | None,
    hints: frozenset[ShipmentName],
    forgotten: Recent[ShipmentName],
) -> Iterator[Deletion]:
    """What is to be forgotten of one; its trouble is said once, and stops no other.

    kept: what sources name, None where that cannot be seen.  hints: shipments that have theirs.  forgotten: those whose
    record goes.
    """
    try:
        name = ShipmentName.parse(one.text)
    except ValueError:
        context.once(
            f"prune {one.text}",
            f"Hathi leaves alone a key that is not its own: {(*one.records, *one.data)[0].key}",
        )
        return
    try:
        yield from _bodies_of(context, name, one, now, hints)
        if kept is not None and one.newest < now - context.settings.prune.ledger_days * DAY:
            yield from _record_of(context, name, one, now, kept, forgotten)
    except Stopped:
        raise
    except PermanentError as error:
        context.once(f"prune {one.text}", f"prune deletes nothing of {one.text}: {error}")


def _bodies_of(
    context: Context, name: ShipmentName, one: Standing, now: float, hints: frozenset[ShipmentName]
) -> Iterator[Deletion]:
    """Its data and attempts, and its hint."""
    limits = context.settings.prune
    orphaned = now - limits.orphan_days * DAY
    if not one.records:
        yield from _old(one.data, orphaned, frozenset(), "its shipment does not exist")
        return
    rests = one.rests(context)
    if not _has_plan(rests):
        if one.data and not _came_late(rests):  # its plan was deleted by somebody: what it names may be wanted again
            where = context.keys.plan(name)
            context.once(
                where, f"no plan, though more of it stands: {where} | prune deletes nothing of it | hathi verify"
            )
        return
    attempts = any(f"/{rest}".count("/t/") for rest in rests)
    if one.newest < now - limits.keep_days * DAY and (one.data or attempts):
        state = _state(context, name, one)
        if is_closed(context, state):
            yield from _data(state, one.data, held_data(context, state))
        elif name not in hints:
            yield from _hint(context, name, state)
        return
    if name not in hints and _may_be_open(name, rests, one.newest, now):
        yield from _hint(context, name, _state(context, name, one))
    if _doubled(one.data, context.keys.data, orphaned):
        state = _state(context, name, one)
        named = _named(context, state) if is_closed(context, state) else None
        if named is not None:
            yield from _old(one.data, orphaned, named, "no manifest names it")


def _has_plan(rests: Iterable[str]) -> bool:
    """A folder of that name counts as one that cannot be read."""
    return any(rest.partition("/")[0] == "plan" for rest in rests)


def _came_late(rests: Iterable[str]) -> bool:
    """Whether nothing stands but what boxes write: results of one that slept until its shipment was forgotten."""
    return all(is_work(rest) for rest in rests)


def _record_of(
    context: Context, name: ShipmentName, one: Standing, now: float, kept: Kept, forgotten: Recent[ShipmentName]
) -> Iterator[Deletion]:
    """What is left of a shipment of so long ago: its record, unless something still needs it."""
    rests = one.rests(context)
    if not _has_plan(rests):
        if one.records and (not one.data or _came_late(rests)):  # the plan went first: the rest is finished off
            yield from _ledger(context, name, one.records)
            orphaned = now - context.settings.prune.orphan_days * DAY
            yield from _old(one.data, orphaned, frozenset(), "prune deleted its shipment")
        return
    if seconds_of(name.version) > now - context.settings.prune.ledger_days * DAY or kept.blind or kept.surely(name):
        return
    state = _state(context, name, one)
    if state.plan is None or not is_closed(context, state) or kept.names(state.plan):
        return
    if one.data and any(entry.key in held_data(context, state) for entry in one.data):
        return
    for before in _before(name, state.plan):
        # Parents before children and parts in order: a child that went first would make its parent look open again.
        if before not in forgotten and exists(context, context.keys.plan(before)):
            return
    if not _still_delivered(context, state):  # folders that only `done` tells to be ours
        forgotten.add(name)
        yield from _ledger(context, name, one.records)


def _state(context: Context, name: ShipmentName, one: Standing) -> ShipmentState:
    return state_from(context, name, [(entry.key, entry.modified) for entry in one.records])


def _may_be_open(name: ShipmentName, rests: Iterable[str], newest: float, now: float) -> bool:
    """Whether to look if a shipment without a hint is open.

    One that is done is not looked into: its hint went when it was closed.  One that has no `done` is void, or has lost
    its hint; after a week without a change it is looked into on one day of each week.
    """
    if "done" in rests:
        return False
    days = int(now // DAY)
    return newest > now - WEEK * DAY or (int(name.hash, 16) + days) % WEEK == 0


def _hint(context: Context, name: ShipmentName, state: ShipmentState) -> Iterator[Deletion]:
    """The hint of an open shipment that has lost it, or of one that cannot be read here, so that it is seen."""
    if state.planned and not is_closed(context, state):
        due = state.plan.due if state.plan is not None else FIRST_DUE
        yield Deletion("bucket", "put_hint", context.keys.open_hint(due, name), "an open shipment's hint")


def _old(data: Iterable[Entry], old: float, named: frozenset[str], why: str) -> Iterator[Deletion]:
    for entry in data:
        if entry.modified < old and entry.key not in named:
            yield Deletion("bucket", "delete", entry.key, why)


def _doubled(data: Iterable[Entry], prefix: str, old: float) -> bool:
    """Whether two wrote the same file of a shipment, so that one of them is perhaps named by no manifest.

    What has no such double is not looked into: it goes with all else of its shipment.
    """
    files = Counter(entry.key.removeprefix(prefix).split("/", 2)[-1] for entry in data)
    return any(
        entry.modified < old and files[entry.key.removeprefix(prefix).split("/", 2)[-1]] > 1 for entry in data
    )  # fmt: skip


def _data(state: ShipmentState, data: Iterable[Entry], stays: frozenset[str]) -> Iterator[Deletion]:
    """The attempts first: who is interrupted is led back here by the data."""
    for task, tries in state.tries.items():
        for made in tries:
            if made.end is not None:
                yield Deletion("bucket", "delete", f"{made.key}.x", f"an attempt at {_what(task)} of a closed shipment")
            yield Deletion("bucket", "delete", made.key, f"an attempt at {_what(task)} of a closed shipment")
    for entry in data:
        if entry.key not in stays:
            yield Deletion("bucket", "delete", entry.key, "closed long ago")


def _what(task: Task) -> str:
    return "delivery" if task == DELIVER else task.path.rpartition("/")[2]


def held_data(context: Context, state: ShipmentState) -> frozenset[str]:
    """What a release of a held batch still needs: its refs, and the failures that say which of them are held."""
    assert state.plan is not None
    if state.out is None or not state.out.held:
        return frozenset()
    kept: set[str] = set()
    unread = False
    for number in sorted(state.results.get(state.out.fingerprint[:12], ())):
        result = readable(context, context.keys.result(state.name, state.out.fingerprint, number), Result)
        held = result is None or result.kind == "held"
        if held and not exists(context, context.keys.end(release_of(state.name, state.plan, number))):
            batch = readable(context, context.keys.batch(state.name, number), Batch)
            unread = unread or batch is None
            kept |= {batch.data.key} if batch else set()
    if kept or unread:
        files = (file for partner in state.out.partners.values() for file in partner.files)
        kept |= {file.key for file in files if is_failures(file.name)}
    if unread:  # which data the batch names is not known here
        raise PermanentError("a held batch cannot be read here", "its refs may be wanted", "see docs/runbook.md")
    return frozenset(kept)


def _named(context: Context, state: ShipmentState) -> frozenset[str] | None:
    """Every data key that a manifest of the shipment names; None where one of them cannot be read here."""
    keys = context.keys
    found: set[str] = set()
    for number in state.batches:
        batch = readable(context, keys.batch(state.name, number), Batch)
        if batch is None:
            return None
        found.add(batch.data.key)
    for fingerprint, numbers in state.results.items():
        for number in numbers:
            result = readable(context, keys.result(state.name, fingerprint, number), Result)
            if result is None:
                return None
            found |= {file.key for file in (result.features_file, result.failures_file) if file is not None}
    if state.out is not None:
        found |= {file.key for partner in state.out.partners.values() for file in partner.files}
        found |= {state.out.carried.key} if state.out.carried else set()
    return frozenset(found)


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


def _still_delivered(context: Context, state: ShipmentState) -> bool:
    """Whether folders stand that lake_days or compacted_days will delete."""
    if context.settings.prune.least_lake_days is None or context.lake is None or state.done is None:
        return False
    return any(context.lake.stat(folder) is not None for folder in state.done.folders)


def _ledger(context: Context, name: ShipmentName, records: Iterable[Entry]) -> Iterator[Deletion]:
    plan = context.keys.plan(name)
    why = "the record of a shipment closed long ago"
    yield Deletion("bucket", "delete", plan, why)
    for entry in records:
        if entry.key != plan:
            yield Deletion("bucket", "delete", entry.key, why)
    yield Deletion("bucket", "delete", context.keys.gone_hint(name), why)
