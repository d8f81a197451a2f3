"""Refs, shards and what was made to be delivered: the data of a shipment that has the item goes as a whole, once it is
closed, as prune would delete it later.  Its record stays, which names no item."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.codec.delivered.forms import FAILURES
from pipeline.errors import FormatError, NotFound
from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.protocol import is_closed, state_from
from pipeline.operations.forget.whose import Pass
from pipeline.operations.prune.shipments import Standing, held_data, walk
from pipeline.stores.store import Entry


def shipments(one: Pass) -> None:
    """Every shipment that has data in the bucket.  Costs the refs that the bucket has: each batch is read."""
    for standing in walk(one.context):
        one.context.safe_point()
        try:
            name = ShipmentName.parse(standing.text)
        except ValueError:
            continue  # not ours
        having = frozenset(entry.key for entry in standing.data if _holds(one, entry))
        if having and not one.is_new(name):
            _shipment(one, name, standing, having)
        one.context.progress("forget", 1, 0)


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
