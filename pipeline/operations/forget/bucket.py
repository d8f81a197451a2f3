"""Refs, shards and what was made to be delivered: the data of a shipment that has the item goes as a whole, once it is
closed, as prune would delete it later.  Its record stays, which names no item."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.codec.delivered.forms import FAILURES
from pipeline.errors import FormatError, NotFound
from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.manifest import End, Plan
from pipeline.ledger.protocol import Context, is_closed, readable, state_from
from pipeline.ledger.state import next_of
from pipeline.operations.forget.whose import Pass
from pipeline.operations.prune.hints import hinted
from pipeline.operations.prune.shipments import Standing, held_data, walk
from pipeline.stores.store import Entry


def shipments(one: Pass) -> None:
    """Every shipment that has data in the bucket.  Costs the refs that the bucket has: each batch is read."""
    context = one.context
    began, at_work = context.bucket.list(context.keys.forget).now, hinted(context)
    for standing in walk(context):
        context.safe_point()
        try:
            name = ShipmentName.parse(standing.text)
        except ValueError:
            continue  # not ours
        having = frozenset(entry.key for entry in standing.data if _holds(one, entry))
        if having and not one.is_new(name):
            _shipment(one, name, standing, having)
        elif _is_read_on(context, name, standing, began if name in at_work else None) and not one.is_new(name):
            one.waiting[str(name)] = f"{name} is being read: nobody knows all of its refs yet"
        context.progress("forget", 1, 0)


def _is_read_on(context: Context, name: ShipmentName, standing: Standing, began: float | None) -> bool:
    """Whether refs of its round are still to come: it has no end, or its next part was planned too late to be seen.

    began: when this pass began, by the store's clock; None for a shipment without a hint, which is closed.
    """
    rests = standing.rests(context)
    if "plan" not in rests or "end" not in rests or began is None:
        return "plan" in rests and "end" not in rests
    plan = readable(context, context.keys.plan(name), Plan)
    end = readable(context, context.keys.end(name), End)
    if plan is None or end is None:
        return True
    if end.next is None:
        return False
    key = context.keys.plan(next_of(name, plan))
    return not any(entry.key == key and entry.modified < began for entry in context.bucket.list(key, until=key))


def _shipment(one: Pass, name: ShipmentName, standing: Standing, having: frozenset[str]) -> None:
    """having: keys of its data that have the item."""
    context = one.context
    if not standing.records:
        _delete(one, standing.data, having)  # its record was pruned: nobody goes on with it
        return
    state = state_from(context, name, [(entry.key, entry.modified) for entry in standing.records])
    if state.unreadable or state.plan is None:
        where = state.unreadable[0].key if state.unreadable else context.keys.plan(name)
        one.waiting[str(name)] = f"{where} cannot be read: `hathi verify` says what to do"
        return
    if not is_closed(context, state):
        one.waiting[str(name)] = f"{name} is open; its data goes once it is delivered and its retries are over"
        return
    stays = held_data(context, state)
    _delete(one, [entry for entry in standing.data if entry.key not in stays], having)
    if having & stays:
        one.waiting[str(name)] = f"a batch of {name} is held: release it or drop it (`hathi quarantine`)"


def _delete(one: Pass, entries: Sequence[Entry], having: frozenset[str]) -> None:
    """What has the item last: whoever is interrupted is led back here by it."""
    for entry in sorted(entries, key=lambda entry: entry.key in having):
        one.context.safe_point()
        one.context.bucket.delete(entry.key)
        one.removed["object"] += 1


def _holds(one: Pass, entry: Entry) -> bool:
    """Whether a data file has the item; of one that cannot be read nobody can say that it does not."""
    context = one.context
    try:
        if entry.key.endswith(".pb"):
            refs = context.forms.decode(context.bucket.get(entry.key), 0)
            return any(one.has(ref.partner_id, ref.item_id) for ref in refs)
        if f"/{one.partner}/{FAILURES}/" in entry.key:
            with context.bucket.open(entry.key) as stream:
                return context.forms.holds(entry.key, stream, one.gone())
    except NotFound:
        return False  # pruned meanwhile
    except FormatError:
        return True
    return False
