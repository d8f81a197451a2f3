"""What a stage did, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.manifest import Out


@dataclass
class Tally:
    """What one stage did, summed up over a run."""

    tasks: int = 0
    files: int = 0
    rows: int = 0
    refs: int = 0
    rejected: int = 0
    features: int = 0
    failures: int = 0
    duplicates: int = 0
    damaged: int = 0
    """Features of images that the decoder said were damaged."""
    alike: int = 0
    """Of the duplicates: ids that differ in letter case or percent-coding only."""
    bytes: int = 0
    seconds: float = 0.0
    partners: set[int] = field(default_factory=set)
    reasons: dict[str, int] = field(default_factory=dict)
    shipments: set[str] = field(default_factory=set)
    dropped: int = 0
    """Refs whose work was dropped: another host's result stood there first."""
    problems: int = 0
    """Tasks that could not be done this time."""
    polls_to_see_all: int = 0
    """A poll reads a bounded number of shipments: so many turns until each one has been looked at."""
    stopped: bool = False
    """ESTOP or a signal ended the turn."""

    @property
    def worked(self) -> bool:
        return self.tasks > 0

    def add_reasons(self, reasons: Mapping[str, int]) -> None:
        for reason, number in reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + number

    def add_shipment(self, name: ShipmentName, out: Out) -> None:
        """A task whose result is this shipment's `out`, or stands on it."""
        self.tasks += 1
        self.shipments.add(str(name))
        self.refs += out.refs
        self.features += out.features
        self.failures += out.failures
        self.duplicates += out.duplicates
        self.damaged += out.damaged
        self.alike += out.alike
        self.add_reasons(out.reasons)
