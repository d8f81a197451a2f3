"""One reading of what is open in a lake's ledger, for all who tell of it: health and status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.protocol import Context, Hints, open_hints, state_from
from pipeline.ledger.state import ShipmentState

SHIPMENTS = 512
"""Open shipments that one look reads; more are counted."""


@dataclass(frozen=True)
class Entered:
    """One shipment: its state, and when each key under `c/S/` was written."""

    state: ShipmentState
    times: Mapping[str, float]


@dataclass(frozen=True)
class OpenShipments:
    """The open shipments of a lake that are due, the first SHIPMENTS by name, and the hints of all."""

    hints: Hints
    read: tuple[Entered, ...]

    @property
    def planned(self) -> tuple[Entered, ...]:
        """Those that exist; a hint whose plan was never written tells of nothing."""
        return tuple(one for one in self.read if one.state.planned)

    @property
    def not_read(self) -> int:
        """How many more are due."""
        return max(0, len(self.hints.due) - SHIPMENTS)


def open_shipments(context: Context) -> OpenShipments:
    """One listing of the hints, one of each shipment, and the bodies that are not cached yet."""
    hints = open_hints(context)
    names = sorted(hints.due)[:SHIPMENTS]
    return OpenShipments(hints, tuple(one for name in names if (one := entered(context, name)) is not None))


def entered(
    context: Context, name: ShipmentName, *, begin: float = 0.0, end: float = float("inf"), settled: bool = False
) -> Entered | None:
    """One listing, and the bodies that are not cached yet; those only where something was written in the time between.

    None where nothing was.  settled: with the attempts at tasks that have their result.
    """
    keys = context.keys
    listed = [(entry.key, entry.modified) for entry in context.bucket.list(keys.shipment(name))]
    if not any(begin <= modified < end for _, modified in listed):
        return None
    return Entered(state_from(context, name, listed, settled=settled), dict(listed))
