"""Deliveries in whose place a later round stands: what is missing of them is missed by nobody."""

from __future__ import annotations

from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.listing import names_under
from pipeline.ledger.manifest import Done, End, Plan
from pipeline.ledger.protocol import Context, readable
from pipeline.ledger.state import next_of

REPLACED = "it is not whole, and a later round of its snapshot is delivered in its place"


def replaced(context: Context, name: ShipmentName) -> bool:
    """Whether a later round of the same snapshot and set is delivered to its end."""
    plan = readable(context, context.keys.plan(name), Plan)
    if plan is None:
        return False
    later = {
        other.round
        for other in names_under(context.bucket, context.keys.commits, begin=name.version)
        if other.version == name.version and other.round > name.round
    }
    return any(_delivered(context, name, plan, round_) for round_ in later)


def _delivered(context: Context, name: ShipmentName, plan: Plan, round_: int) -> bool:
    """All parts of a round."""
    part: ShipmentName | None = ShipmentName.of(
        plan.lake, plan.snapshot_digest, plan.set, name.version, round_, 0, 0
    )  # fmt: skip
    while part is not None:
        body = readable(context, context.keys.plan(part), Plan)
        end = readable(context, context.keys.end(part), End)
        done = readable(context, context.keys.done(part), Done)
        if body is None or end is None or end.void is not None or done is None or done.void is not None:
            return False
        part = next_of(part, body) if end.next is not None else None
    return True
