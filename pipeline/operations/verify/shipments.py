"""The ledger: each shipment's record, what it names under `d/` and on the lake, and its parent, child and next part."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.amounts import counted, size
from pipeline.ledger.layout import ShipmentName, seconds_of
from pipeline.ledger.listing import named
from pipeline.ledger.manifest import DataFile, End, Plan
from pipeline.ledger.protocol import Context, exists, is_closed, readable, state_of
from pipeline.ledger.state import child_of, next_of
from pipeline.operations.verify.finding import Finding, Looking, Say
from pipeline.operations.verify.hashing import wrong_hash
from pipeline.operations.verify.hops import hops
from pipeline.operations.verify.record import Record, read_record
from pipeline.operations.verify.replaced import REPLACED, replaced
from pipeline.stages.operator_requests import CLOSED, release_of
from pipeline.stores.store import Lake
from pipeline.times import DAY


def shipments(say: Say, context: Context, lake: Lake | None, *, deep: bool) -> Iterator[Finding]:
    """Every shipment that the ledger has, in the order of names; one of them in memory at a time."""
    for entry, name in named(context.bucket, context.keys.commits):
        context.safe_point()
        if name is None:
            yield say("not_ours", entry.key, "this is not the name of a shipment")
            continue
        yield from _shipment(say, context, lake, name, deep)
        context.progress("verify", 1, 0)


def _shipment(say: Say, context: Context, lake: Lake | None, name: ShipmentName, deep: bool) -> Iterator[Finding]:
    keys = context.keys
    record = yield from read_record(say, context.bucket, keys, name, deep=deep)
    if record.plan is None:
        yield from _without_plan(say, context, record)
        return
    yield from hops(say, keys, record)
    closed = yield from _relations(say, context, record)
    yield from _data(say, context, record, closed, deep)
    if not (record.void or record.given_up):
        yield from _held(say, context, record)
    if lake is not None and record.done is not None:
        yield from _folders(say, context, lake, record)


def _without_plan(say: Say, context: Context, record: Record) -> Iterator[Finding]:
    if "plan" in record.unread or not record.objects or record.void or record.given_up:
        return
    where = context.keys.shipment(record.name)
    if record.newest < record.now - context.settings.prune.ledger_days * DAY:
        rest = counted(record.objects, "object")
        yield say("being_pruned", where, f"prune has deleted the plan of this shipment; {rest} left")
    elif record.batches or record.end or record.results or record.out or record.done:
        yield say("hop_missing", context.keys.plan(record.name), "the shipment has objects, but no plan")


def _relations(say: Say, context: Context, record: Record) -> Looking[bool]:
    """Parent, child, next part and hint; whether the shipment is closed."""
    assert record.plan is not None
    yield from _parent(say, context, record, record.plan)
    child = follows = True
    if record.out is not None and record.out.carried is not None and not (record.void or record.given_up):
        child = yield from _child(say, context, record, record.plan, record.out.carried.rows)
    if record.end is not None and record.end.next is not None:
        follows = exists(context, context.keys.plan(next_of(record.name, record.plan)))
    closed = record.closed(child_has_end=child, next_has_plan=follows)
    if closed:
        return True
    if record.plan.set not in context.settings.sets:
        what = f"the shipment is open, and this configuration has no set {record.plan.set}"
        yield say("set_unknown", context.keys.plan(record.name), what)
    hint = context.keys.open_hint(record.plan.due, record.name)
    if not exists(context, hint) and not _closed_by_now(context, record.name):
        yield say("no_hint", hint, "the shipment is open, and its hint does not exist")
    return False


def _closed_by_now(context: Context, name: ShipmentName) -> bool:
    """Whether somebody closed it, or finished it off, while verify was at it."""
    state = state_of(context, name)
    return state.plan is None or is_closed(context, state)


def _parent(say: Say, context: Context, record: Record, plan: Plan) -> Iterator[Finding]:
    """A shipment made from another one: that one is there, unless it is old enough to be pruned first."""
    if plan.parent is None:
        return
    where = context.keys.plan(record.name)
    try:
        parent = ShipmentName.parse(plan.parent)
    except ValueError:
        yield say("misnamed", where, f"its parent is not a shipment: {plan.parent}")
        return
    if any(True for _ in context.bucket.list(context.keys.shipment(parent))):
        return  # where its plan is what is missing, its own turn says so
    born = record.planned
    if plan.kind == "retry":
        born = _seconds(plan.due) - plan.retry_delays[min(parent.generation % 4, 2)]
    if born > record.now - context.settings.prune.ledger_days * DAY:
        yield say("hop_missing", context.keys.plan(parent), f"it is the parent of {record.name}, and does not exist")


def _seconds(version: str) -> float:
    """0 for what is no time."""
    try:
        return seconds_of(version)
    except ValueError:
        return 0.0


def _child(say: Say, context: Context, record: Record, plan: Plan, carried: int) -> Looking[bool]:
    """The law from parent to child; whether the child has its end."""
    keys = context.keys
    child = child_of(record.name, plan)
    end = readable(context, keys.end(child), End)
    if end is None:  # where it cannot be read, the child's own turn says so
        return exists(context, keys.end(child))
    if end.void is not None and end.void.startswith(CLOSED):
        return True
    if end.refs != carried or end.void is not None:
        what = "it is void" if end.void is not None else f"it has {counted(end.refs, 'ref')}"
        yield say(
            "child_differs", keys.end(child), f"{what}, but {record.name} carries {counted(carried, 'ref')} over to it"
        )
    body = readable(context, keys.plan(child), Plan)
    if body is not None and (body.parent, body.kind) != (str(record.name), "retry"):
        yield say("child_differs", keys.plan(child), f"its parent is {body.parent}, but must be {record.name}")
    return True


def _held(say: Say, context: Context, record: Record) -> Iterator[Finding]:
    assert record.plan is not None
    for fingerprint, results in record.results.items():
        for number, result in results.items():
            if result.kind == "held" and not _answered(context, record.name, record.plan, number):
                where = f"{context.keys.shipment(record.name)}{fingerprint}/r/{number:05d}"
                yield say("held", where, f"the batch is held, with {counted(result.refs, 'ref')}: {result.reason}")


def _answered(context: Context, name: ShipmentName, plan: Plan, batch: int) -> bool:
    return exists(context, context.keys.end(release_of(name, plan, batch)))


def _data(say: Say, context: Context, record: Record, closed: bool, deep: bool) -> Iterator[Finding]:
    """What is named under `d/` is there and whole while somebody needs it; what nobody names is said once."""
    assert record.plan is not None
    listing = context.bucket.list(f"{context.keys.data}{record.name}/")
    there = {entry.key: (entry.size, entry.modified) for entry in listing}
    may_go = closed and record.newest < record.now - context.settings.prune.keep_days * DAY
    named: set[str] = set()
    for rest, file, batch in record.data():
        named.add(file.key)
        if file.key not in there:
            needed = not closed or _needed(context, record, batch)
            if needed and "plan" not in record.unread:
                yield say("data_missing", file.key, f"{rest} of {record.name} names it, and it does not exist")
            elif there and not may_go:
                yield say("data_gone_early", file.key, f"{rest} of {record.name} names it, and it does not exist")
            continue
        length = there[file.key][0]
        if length != file.size:
            what = f"it has {counted(length, 'byte')}; {rest} of {record.name} says {file.size:,}"
            yield say("data_length", file.key, what)
        elif deep and (wrong := _wrong(context, record, file)):
            yield say("data_hash", file.key, f"{wrong} ({rest} of {record.name})")
    unnamed = sorted(there.keys() - named)
    if unnamed and not record.unread:
        yield unnamed_data(say, unnamed, there, listing.now, context.settings.prune.orphan_days)


def _wrong(context: Context, record: Record, file: DataFile) -> str:
    """What is wrong with the bytes; nothing where prune took them while they were read."""
    wrong = wrong_hash(context.bucket, file.key, file.sha256)
    pruned = wrong and not exists(context, file.key) and _closed_by_now(context, record.name)
    return "" if pruned else wrong


def _needed(context: Context, record: Record, batch: int | None) -> bool:
    """The refs of a held batch stay, though the shipment is closed, until its release has them."""
    assert record.plan is not None
    if batch is None or record.out is None:
        return False
    result = record.results.get(record.out.fingerprint[:12], {}).get(batch)
    return result is not None and result.kind == "held" and not _answered(context, record.name, record.plan, batch)


def unnamed_data(
    say: Say, unnamed: list[str], there: dict[str, tuple[int, float]], now: float, orphan_days: float
) -> Finding:
    """One line for all of a shipment's data that no manifest names.  there: size and time of each key."""
    in_bytes = size(sum(there[key][0] for key in unnamed))
    old = sum(there[key][1] < now - orphan_days * DAY for key in unnamed)
    young = "all are recent: a process may still work on them, or it was killed"
    age = f"{old:,} of them are older than {orphan_days:g} days" if old else young
    return say("unnamed_data", unnamed[0], f"no manifest names {counted(len(unnamed), 'object')} ({in_bytes}); {age}")


def _folders(say: Say, context: Context, lake: Lake, record: Record) -> Iterator[Finding]:
    """What `done` says was delivered stands there, unless it is old enough to be deleted."""
    assert record.done is not None
    days = context.settings.prune.least_lake_days
    if days is not None and _seconds(record.done.at) < record.now - days * DAY:
        return
    for folder in record.done.folders:
        if lake.stat(folder) is not None:
            continue
        if replaced(context, record.name):
            yield say("replaced", folder, REPLACED)
        else:
            yield say("folder_missing", folder, f"{record.name} was delivered there, and the folder does not exist")
