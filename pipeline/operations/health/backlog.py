"""What waits, by stage and by partner.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pipeline.ledger.deliveries import Index
from pipeline.ledger.layout import FIRST_DUE, seconds_of
from pipeline.ledger.state import ShipmentState, waits_for
from pipeline.operations.health.facts import Backlog, Freshness
from pipeline.stage_names import AGGREGATE, COMPUTE, DELIVER, SHIP, STAGES

PARTNERS = 1_000
"""The most lagging ones are known by name; so many at the most."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An open shipment, and since when it waits."""

    state: ShipmentState
    since: float


def waiting_since(due: str, hinted: float) -> float:
    """A first try waits since its hint was put (by the store's clock), a retry since its day."""
    return hinted if due == FIRST_DUE else seconds_of(due)


def backlog(open_: Iterable[Waiting], unplanned: Iterable[float] = ()) -> tuple[Backlog, ...]:
    """What waits for each stage.  unplanned: since when snapshots wait that no shipment covers.

    A shipment counts where something has to be done for it next; its batches count for compute as soon as they are
    there, though ship is still at it.
    """
    sums = {stage: Backlog(stage) for stage in STAGES}
    for since in unplanned:
        sums[SHIP] = _plus(sums[SHIP], 1, 0, 0, since)
    for one in open_:
        stage = waits_for(one.state)
        missing, refs = _not_computed(one.state)
        if missing and stage in (SHIP, COMPUTE):
            sums[COMPUTE] = _plus(sums[COMPUTE], int(stage == COMPUTE), missing, refs, one.since)
        elif stage == COMPUTE:
            sums[stage] = _plus(sums[stage], 1, 0, 0, one.since)
        if stage in (AGGREGATE, DELIVER):
            end = one.state.end
            sums[stage] = _plus(sums[stage], 1, end.batches if end else 0, end.refs if end else 0, one.since)
        elif stage == SHIP and one.state.plan is not None:
            sums[stage] = _plus(sums[stage], 1, 0, 0, one.since)
    return tuple(sums.values())


def _plus(sums: Backlog, shipments: int, batches: int, refs: int, since: float) -> Backlog:
    return replace(
        sums,
        shipments=sums.shipments + shipments,
        batches=sums.batches + batches,
        refs=sums.refs + refs,
        oldest=since if sums.oldest is None else min(sums.oldest, since),
    )


def _not_computed(state: ShipmentState) -> tuple[int, int]:
    """Batches without a result, and about how many refs those are."""
    if state.plan is None or state.out is not None or state.void:
        return 0, 0
    have = max((len(done) for done in state.results.values()), default=0)
    missing = max(0, len(state.batches) - have)
    if state.end is not None and state.end.batches:
        return missing, round(state.end.refs * missing / state.end.batches)
    return missing, missing * state.plan.batch_refs


def freshness(set_name: str, index: Index, source: Mapping[str, str], now: float) -> list[Freshness]:
    """Each partner of one set, most lagging first.  source: the newest version at the source, by partner."""
    found = []
    for partner in {*index.partners, *source}:
        known = index.partners.get(partner)
        has, delivered = source.get(partner, ""), known.jobTimeStamp if known is not None else ""
        lag = 0.0
        if has > delivered:
            lag = seconds_of(has) - seconds_of(delivered) if delivered else now - seconds_of(has)
        found.append(Freshness(partner, set_name, has, delivered, max(0.0, lag)))
    return sorted(found, key=lambda one: (-one.lag, one.delivered, int(one.partner)))


def most_lagging(all_: Iterable[Freshness]) -> tuple[Freshness, ...]:
    """The first PARTNERS of several sets together."""
    return tuple(sorted(all_, key=lambda one: (-one.lag, one.delivered, one.set, int(one.partner)))[:PARTNERS])
