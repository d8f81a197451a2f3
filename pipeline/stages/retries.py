"""Retries: the child of a shipment, which tries again what failed and may go away (docs/protocol.md 6).

Failures that may go away (a timeout, a server that was down) are delivered like all failures, and their refs are
carried over into a child shipment that is due later.  The child follows from the committed `out` alone, so any number
of boxes may write it and all write the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.ledger.data import download, store_data
from pipeline.ledger.layout import ShipmentName, seconds_of, version_of
from pipeline.ledger.manifest import Batch, End, Place, Plan
from pipeline.ledger.protocol import Context, announce, commit, exists, known_to_exist, law, scratch
from pipeline.ledger.state import ShipmentState, child_of
from pipeline.records import ImageRef


def plan_children(states: Iterable[ShipmentState], context: Context) -> list[ShipmentState]:
    """Shipments whose retriable failures are to be carried over, and are not yet."""
    return [
        state
        for state in states
        if state.carries
        and not state.unreadable
        and state.plan is not None
        and not known_to_exist(context, context.keys.end(child_of(state.name, state.plan)))
    ]


def retry(context: Context, state: ShipmentState) -> ShipmentName | None:
    """The child shipment of a committed `out`: hint, plan, batches, end.  Any number of writers agree on it."""
    child = retry_plan(state)
    if child is None or state.out is None or state.out.carried is None:
        return None
    name, body = child
    _, stands = announce(context, name, body)
    with scratch(context) as folder:
        path = folder / "carried"
        download(context, state.out.carried, path)
        rows = state.out.carried.rows
        size = max(stands.batch_refs, -(-rows // stands.batches))
        end = write_batches(context, name, context.forms.pieces(path, size, stands.batch_bytes))
    law(f"{name} carried", rows, refs=end.refs)
    return name


def retry_plan(state: ShipmentState) -> tuple[ShipmentName, Plan] | None:
    """Name and plan of the child that follows from a committed `out`; None where nothing is carried over."""
    if state.plan is None or state.out is None or state.out.carried is None:
        return None
    name = child_of(state.name, state.plan)
    step = state.name.generation % 4
    due = version_of(seconds_of(state.out.at) + state.plan.retry_delays[min(step, 2)])
    body = Plan(
        kind="retry",
        lake=state.plan.lake,
        set=state.plan.set,
        snapshot=state.plan.snapshot,
        snapshot_digest=state.plan.snapshot_digest,
        batch_refs=state.plan.batch_refs,
        batch_bytes=state.plan.batch_bytes,
        batches=state.plan.batches,
        parent=str(state.name),
        salt=state.plan.salt,
        due=due,
        retry_delays=state.plan.retry_delays,
        expects=state.plan.expects,
        from_archive=state.plan.from_archive,
    )
    return name, body


def write_batches(context: Context, name: ShipmentName, pieces: Iterable[list[ImageRef]]) -> End:
    """Batches and `end` of a shipment whose refs all come from the bucket, a batch a piece."""
    number = refs = 0
    for part in pieces:
        context.safe_point()
        refs += len(part)
        if not exists(context, context.keys.batch(name, number)):
            key = context.keys.shipment_data(name, context.process.nonce(), f"{number:05d}.pb")
            data = store_data(context, key, context.forms.encode(part), len(part))
            body = Batch(data=data, refs=len(part), rows=len(part), rejected=0, cursor=Place(row=refs))
            _, stands = commit(context, context.keys.batch(name, number), body)
            if stands.data.key != key:
                context.bucket.delete(key)
        number += 1
    end = End(batches=number, refs=refs, rows=refs, rejected=0)
    _, stands_end = commit(context, context.keys.end(name), end)
    return stands_end
