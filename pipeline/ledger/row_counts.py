"""What became of rows: the one count that stages sum up over a run, and reports over the ledger.

A run counts what it did itself; a report counts what stands in the ledger, whoever did it.  Both add the same values,
and both derive them here from the bodies that the law was checked on before they were committed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from pipeline.ledger.manifest import Batch, End, Out
from pipeline.ledger.state import ShipmentState


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Rows of sources and where they ended.

    Of whole shipments the law holds (docs/protocol.md 11): rows = rejected + refs, and refs = unfinished + duplicates
    + features + failures.  One stage knows a part of it: what it has nothing to do with stays 0.
    """

    rows: int = 0
    rejected: int = 0
    refs: int = 0
    unfinished: int = 0
    """Refs of shipments that are not aggregated yet."""
    duplicates: int = 0
    features: int = 0
    failures: int = 0
    delivered: int = 0
    """Of the features."""
    damaged: int = 0
    """Of the features: the decoder said that their images were damaged."""
    not_modified: int = 0
    """Of the features: computed before, and the host said that the image is what it was."""
    equal_bytes: int = 0
    """Of the features: computed before, and the host sent the same bytes."""
    alike: int = 0
    """Of the duplicates: ids that differ from their item's in letter case or percent-coding only."""
    archived: int = 0
    """Of the refs: their images were kept in the archive."""
    from_archive: int = 0
    """Of the refs: their images came from there, and no host was asked."""

    def __add__(self, other: RowCounts) -> RowCounts:
        return RowCounts(*(getattr(self, name) + getattr(other, name) for name in _NAMES))

    @property
    def reused(self) -> int:
        """Of the features: those that were computed before."""
        return self.not_modified + self.equal_bytes

    @staticmethod
    def read(body: Batch | End) -> RowCounts:
        """What was read of a source, by a batch or by a shipment's end."""
        return RowCounts(rows=body.rows, rejected=body.rejected, refs=body.refs)

    @staticmethod
    def aggregated(out: Out) -> RowCounts:
        """What became of a shipment's refs."""
        return RowCounts(
            refs=out.refs,
            duplicates=out.duplicates,
            features=out.features,
            failures=out.failures,
            damaged=out.damaged,
            not_modified=out.not_modified,
            equal_bytes=out.equal_bytes,
            alike=out.alike,
        )

    @staticmethod
    def of(state: ShipmentState) -> RowCounts:
        """All that is known of a shipment's rows; nothing of one that is void, or is still read."""
        if state.end is None or state.given_up:
            return NO_ROWS
        read = RowCounts.read(state.end)
        if state.out is None:
            return replace(read, unfinished=read.refs)
        delivered = state.out.features if state.done is not None else 0
        return replace(RowCounts.aggregated(state.out), rows=read.rows, rejected=read.rejected, delivered=delivered)


_NAMES = tuple(field.name for field in fields(RowCounts))

NO_ROWS = RowCounts()
