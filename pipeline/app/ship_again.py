"""A new round for what was shipped already: ship again, or back-fill a set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.protocol import Context
from pipeline.records import REASONS
from pipeline.settings import Settings
from pipeline.stages import operator_requests
from pipeline.stages.snapshots import takes


@dataclass(frozen=True)
class Announced:
    """A snapshot that is shipped once more."""

    source: str
    set: str
    shipment: ShipmentName


@dataclass(frozen=True)
class Underway:
    """A snapshot whose newest round is not over yet: what it fails for is known when it is."""

    source: str
    set: str
    shipment: ShipmentName


def close(contexts: Iterable[Context], shipment: str, why: str = "it could not go on") -> operator_requests.Closed:
    """End a shipment that cannot go on without features, and ship its snapshot again.

    Raises ConfigError where no lake has it, PermanentError where it is not to be closed.
    """
    context, name = found(contexts, shipment)
    return operator_requests.close(context, name, why)


def found(contexts: Iterable[Context], shipment: str) -> tuple[Context, ShipmentName]:
    """A shipment that a person names, and where it is.  Raises ConfigError where no lake has it."""
    try:
        name = ShipmentName.parse(shipment)
    except ValueError as error:
        raise ConfigError(f"not a shipment: {shipment}", "", "`hathi status` names the open ones") from error
    for context in contexts:
        if any(True for _ in context.bucket.list(context.keys.shipment(name))):
            return context, name
    raise ConfigError(f"there is no shipment {shipment}", "", "`hathi status` names the open ones")


def check_sets(settings: Settings, sets: Sequence[str]) -> None:
    """Raises ConfigError for a set that is not configured."""
    for one in sets:
        if one not in settings.sets:
            raise ConfigError(f"no set {one}", "", f"sets are: {', '.join(sorted(settings.sets))}")


def announce_failed(
    contexts: Iterable[Context], reason: str, partner: str, sets: Sequence[str]
) -> Iterator[Announced | Underway]:
    """Announce a new round of each newest snapshot of which images failed finally for this reason.

    partner: of this one only; "" for all.  A snapshot whose newest round is still open is tried again already.
    Raises ConfigError for a reason that is none, and where nothing failed finally for it.
    """
    if reason not in REASONS:
        raise ConfigError(f"no reason {reason}", "", f"reasons are: {', '.join(sorted(REASONS))}")
    number = 0
    for context in contexts:
        for name, plan in operator_requests.newest(context, "", _sets_of(context, sets)):
            what = operator_requests.failed_finally(context, name, plan, reason, partner)
            if what is operator_requests.Tried.NOTHING:
                continue
            number += 1
            if what is operator_requests.Tried.OPEN:
                yield Underway(plan.snapshot.source, plan.set, name)
            else:
                yield Announced(plan.snapshot.source, plan.set, operator_requests.again(context, name, plan))
    if not number:
        whose = f" of partner {partner}" if partner else ""
        hint = "`hathi report` shows the reasons; what is retriable is tried again by itself before it is final"
        raise ConfigError(f"no image{whose} failed finally for {reason}", "", hint)


def _sets_of(context: Context, sets: Sequence[str]) -> list[str]:
    """The sets that serve a lake, of those that are wanted; none means all of them."""
    configured = context.settings.sets
    return [one for one in configured if takes(configured[one], context.lake_name) and one in (sets or configured)]


def announce(
    contexts: Iterable[Context], wanted: str, sets: Sequence[str], *, backfill: bool = False
) -> Iterator[Announced]:
    """Announce a new round of the newest snapshots of what is wanted, one after the other.

    wanted: a partner, a source or a shipment; "" for all.  sets: for these only; none means all of them.
    backfill: refs are copied while the bucket has them, else the source is read again.
    Raises ConfigError where nothing was shipped yet by that name.
    """
    number = 0
    for context in contexts:
        mine = _sets_of(context, sets)
        for name, plan in operator_requests.newest(context, wanted, mine):
            child = operator_requests.again(context, name, plan, backfill=backfill)
            yield Announced(plan.snapshot.source, plan.set, child)
            number += 1
    if not number:
        hint = "name a partner, a source or a shipment"
        raise ConfigError(f"nothing was shipped yet by the name {wanted!r}", "", hint)
