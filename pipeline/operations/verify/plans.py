"""Plans that somebody deleted, written again: a name follows from its source, so that a plan can be found by it.

What a plan says is known from what the sources name, from the other plans of the same snapshot, or from the shipment
that it comes from.  Where the name of a shipment without a plan follows from one of these, that is its plan.  Batches
that stand are gone on from, so other settings than those of that day do no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.ledger.layout import FIRST_DUE, ShipmentName
from pipeline.ledger.listing import names_under
from pipeline.ledger.manifest import Place, Plan
from pipeline.ledger.protocol import Context, announce, state_of
from pipeline.ledger.state import READ_FROM_SOURCES, ShipmentState, next_of
from pipeline.sources.conventions import Sources
from pipeline.sources.found import Found
from pipeline.stages.expectations import Expectations
from pipeline.stages.following import Following
from pipeline.stages.retries import retry_plan
from pipeline.stages.snapshots import new_of, takes
from pipeline.stores.store import Lake
from pipeline.times import DAY


def replanned(context: Context, lake: Lake | None) -> Iterator[ShipmentName]:
    """Write each lost plan again that can be known; the shipments that have one now.

    lake: None where it cannot be seen, and then its sources tell nothing.
    """
    planned: list[ShipmentName] = []
    lost: set[ShipmentName] = set()
    now = context.bucket.list(context.keys.alive_hints).now
    for name in names_under(context.bucket, context.keys.commits):
        context.safe_point()
        state = state_of(context, name)
        if state.plan is not None:
            planned.append(name)
        elif not state.unreadable and state.newest > now - context.settings.prune.ledger_days * DAY:
            lost.add(name)
    if not lost:
        return
    found = _at_the_sources(context, lake, now)
    while lost:
        known = _of_snapshots(context, found, lost)
        for name in planned:
            known |= _of_another(state_of(context, name), lost)
        again = sorted(lost & known.keys())
        if not again:
            return
        for name in again:
            context.safe_point()
            announce(context, name, known[name])
            planned.append(name)
            lost.discard(name)
            yield name


def _at_the_sources(context: Context, lake: Lake | None, now: float) -> tuple[Found, ...]:
    if lake is None:
        return ()
    mine = context.settings.lakes[context.lake_name]
    url = context.settings.url_of(context.lake_name)
    sources = Sources(lake, mine.sources, context.settings.delivered(context.lake_name), url)
    return tuple(sources.look(now, wide=True).found)


def _of_snapshots(context: Context, found: Iterable[Found], lost: set[ShipmentName]) -> dict[ShipmentName, Plan]:
    """First parts of what the sources name, in the rounds of the lost ones."""
    known: dict[ShipmentName, Plan] = {}
    expectations = Expectations(Following(context))
    for one in found:
        rounds = _rounds(lost, one.snapshot.version)
        for set_name, feature_set in context.settings.sets.items():
            for round_ in rounds if takes(feature_set, context.lake_name) else ():
                new = new_of(one, set_name, context.lake_name, round_, context.settings.ship)
                expects = {"expects": expectations[set_name]}
                known[new.name] = _in_round(new.plan, round_).model_copy(update=expects)
    return known


def _of_another(state: ShipmentState, lost: set[ShipmentName]) -> dict[ShipmentName, Plan]:
    """What follows from a shipment whose plan stands: other rounds of its snapshot, its next part, its retry."""
    plan, name = state.plan, state.name
    if plan is None:
        return {}
    known: dict[ShipmentName, Plan] = {}
    if plan.kind in READ_FROM_SOURCES:
        for round_ in _rounds(lost, name.version):
            first = ShipmentName.of(plan.lake, plan.snapshot_digest, plan.set, name.version, round_, 0, 0)
            known[first] = _in_round(plan.model_copy(update={"cursor": Place(), "due": FIRST_DUE}), round_)
        if state.end is not None and state.end.next is not None:
            known[next_of(name, plan)] = plan.model_copy(update={"cursor": state.end.next, "due": FIRST_DUE})
    if (child := retry_plan(state)) is not None:
        known[child[0]] = child[1]
    return known


def _rounds(lost: set[ShipmentName], version: str) -> set[int]:
    return {name.round for name in lost if name.version == version}


def _in_round(plan: Plan, round_: int) -> Plan:
    """Round 0 is the source's own; who ships again or back-fills has a later one, and the source is read for it."""
    return plan.model_copy(update={"kind": "again" if round_ else "source", "parent": None, "salt": ""})
