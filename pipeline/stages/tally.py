"""What a stage did, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.manifest import Out
from pipeline.ledger.row_counts import NO_ROWS, RowCounts


@dataclass
class Tally:
    """What one stage did, summed up over a run.

    It is no `RowCounts`: a run has tasks, seconds and problems as well, and grows while it is looked at.  The rows
    that it worked on are one value within it.
    """

    counts: RowCounts = NO_ROWS
    tasks: int = 0
    files: int = 0
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
    paced: dict[str, str] = field(default_factory=dict)
    """By host: the polite limit that set the pace, in words."""
    stopped: bool = False
    """ESTOP or a signal ended the turn."""

    @property
    def worked(self) -> bool:
        return self.tasks > 0

    def add(self, more: Tally) -> None:
        """What another turn did.  The seconds of one without work are none of its rate."""
        self.counts += more.counts
        self.tasks += more.tasks
        self.files += more.files
        self.bytes += more.bytes
        self.seconds += more.seconds if more.worked else 0.0
        self.partners |= more.partners
        self.add_reasons(more.reasons)
        self.shipments |= more.shipments
        self.dropped += more.dropped
        self.problems += more.problems
        self.paced.update(more.paced)

    def add_reasons(self, reasons: Mapping[str, int]) -> None:
        for reason, number in reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + number

    def add_shipment(self, name: ShipmentName, out: Out) -> None:
        """A task whose result is this shipment's `out`, or stands on it."""
        self.tasks += 1
        self.shipments.add(str(name))
        self.counts += RowCounts.aggregated(out)
        self.add_reasons(out.reasons)
