"""Promotions that a tenant of the service asked for: into the bucket, once for each request, and how far they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from pipeline.app import promoting
from pipeline.app.candidates import Candidate, Files, of_files, of_promotion
from pipeline.app.contexts import contexts
from pipeline.app.promoting import Judged, Wanted
from pipeline.errors import ConfigError
from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.manifest import Promoted
from pipeline.ledger.protocol import Context
from pipeline.operations.backfills import far
from pipeline.service.promotion import (
    Bundle,
    InUse,
    Order,
    Outcome,
    Overtaken,
    Parted,
    Progress,
    Requested,
    lakes_of,
)
from pipeline.settings import Settings
from pipeline.stages import operator_requests

PROGRAM = "promote"
"""Whose log what is odd in the bucket goes to."""


class Promotions:
    """`service.promotion.Promoter` over the lakes of a configuration."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def _contexts(self) -> dict[str, Context]:
        return {one.lake_name: one for one in contexts(self.settings, ["compute"], lambda: False, PROGRAM)}

    def promote(self, order: Order, bundle: Bundle | None, still: Callable[[], bool]) -> Outcome:
        """As `Promoter`.  In each lake first the files, then the number; then what is to be computed anew."""
        where = [self._contexts[lake] for lake in self._lakes(order)]
        model = self.settings.sets[order.set].model or ""
        if bundle is not None:
            candidate = _candidate(bundle)
        else:
            candidate = of_promotion(where[0], Promoted(model=model, number=order.number or 0))
        figures = dict(candidate.figures)
        wanted = Wanted(model, candidate, figures, why=order.why, by=order.by, request=order.id)
        found = [_put(judged, order, still) for judged in [promoting.judge(context, wanted) for context in where]]
        if not order.backfill:
            return Outcome(found, None)
        asked = [one for context, now in zip(where, found, strict=True) for one in _anew(context, order.set, now)]
        return Outcome(found, asked)

    def progress(self, requested: Sequence[Requested]) -> Progress:
        """As `Promoter`: it reads the manifests of these shipments, of their later parts and of their retries."""
        by_lake: dict[str, list[ShipmentName]] = {}
        for one in requested:
            if one.lake in self._contexts:  # else the configuration has changed since
                by_lake.setdefault(one.lake, []).append(ShipmentName.parse(one.shipment))
        told = [far(self._contexts[lake], names) for lake, names in by_lake.items()]
        sums = [sum(of) for of in zip(*told, strict=True)] or [0] * 6
        return Progress(*sums)

    def _lakes(self, order: Order) -> list[str]:
        if order.set not in self.settings.sets:
            raise ConfigError(f"set {order.set} is in no configuration of this worker", "", "configure it alike")
        lakes = lakes_of(self.settings, self.settings.sets[order.set])
        found = [lake for lake in lakes if order.lake in ("", lake)]
        if not found:
            raise ConfigError(f"set {order.set} takes no lake {order.lake}".rstrip(), "", "name one that it takes")
        return found


def _candidate(bundle: Bundle) -> Candidate:
    made = of_files(Files(bundle.net, bundle.weights, bundle.mean))
    return replace(made, figures=bundle.figures, job=bundle.job, data=bundle.data, labels=bundle.labels)


def _put(judged: Judged, order: Order, still: Callable[[], bool]) -> InUse:
    """What is in use in one lake now.  Raises Overtaken, Parted."""
    lake, model = judged.context.lake_name, judged.wanted.model
    now = InUse(lake, model, judged.number, True, judged.fingerprints[order.set], judged.before[order.set])
    if judged.mine is not None:
        return now
    if judged.in_use:
        assert judged.current is not None
        return replace(now, number=judged.current.number, new=False)
    if not still():
        raise Parted
    outcome = promoting.promote(judged)
    if outcome.won or outcome.stands.request == order.id:  # else another worker did this very request
        return now
    raise Overtaken(
        f"another promotion was first: {outcome.promoted} is in use in lake {lake}", "", "look at it, then ask again"
    )


def _anew(context: Context, name: str, now: InUse) -> Iterator[Requested]:
    """Requests a new round of the newest snapshot of each source; one that was requested before is not again."""
    for shipment, plan in operator_requests.newest(context, "", [name]):
        by = plan.expects.promoted if plan.expects is not None else None
        if by is None or by.model != now.model or by.number < now.number:
            shipment = operator_requests.again(context, shipment, plan, backfill=True)
        yield Requested(context.lake_name, str(shipment))
