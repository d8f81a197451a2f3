"""Shipments as the ledger tells of them, with when each thing was done, by the store's clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.ledger.layout import Keys, ShipmentName, version_of
from pipeline.ledger.listing import names_under
from pipeline.ledger.manifest import Plan
from pipeline.ledger.protocol import Context, open_hints
from pipeline.ledger.state import ShipmentState
from pipeline.operations.open_shipments import Entered, entered
from pipeline.times import DAY, HOUR

LATELY = 64
"""Shipments of the last day that are looked at for what was done in the last hour."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that a stage has finished."""

    stage: str
    at: float
    """Seconds since 1970, by the store's clock."""
    refs: int
    """Of a batch about so many: those of its shipment, evenly."""


def steps(keys: Keys, one: Entered) -> Iterator[Step]:
    """What was done of a shipment, in no order."""
    state, times, name = one.state, one.times, one.state.name
    if state.plan is None:
        return
    for number in state.batches:
        yield Step("ship", times[keys.batch(name, number)], _refs(state, state.plan, number))
    for fingerprint, numbers in state.results.items():
        for number in numbers:
            yield Step("compute", times[keys.result(name, fingerprint, number)], _refs(state, state.plan, number))
    if state.out is not None:
        yield Step("aggregate", times[keys.out(name)], state.out.refs)
        if state.done is not None and not state.given_up:
            yield Step("deliver", times[keys.done(name)], state.out.features + state.out.failures)


def _refs(state: ShipmentState, plan: Plan, number: int) -> int:
    """Of one batch, without reading its body; the sum over all batches is that of the shipment."""
    if state.end is None or number >= state.end.batches:
        return plan.batch_refs
    refs, batches = state.end.refs, state.end.batches
    return refs * (number + 1) // batches - refs * number // batches


def hinted(context: Context) -> Iterator[ShipmentName]:
    """The open shipments, those that are not due yet too."""
    hints = open_hints(context)
    yield from (*hints.due, *hints.later)


def lately(context: Context, now: float, known: Iterable[ShipmentName]) -> Iterator[Entered]:
    """The newest shipments with a version of the last day, less the known ones, where the last hour did something."""
    left_out = set(known)
    listed = names_under(context.bucket, context.keys.commits, after=version_of(now - DAY))
    names = [one for one in listed if one not in left_out]
    for name in names[-LATELY:]:
        found = entered(context, name, begin=now - HOUR)
        if found is not None:
            yield found
