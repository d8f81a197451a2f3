"""The Summary line of a run, in the original's words."""

from __future__ import annotations

from pipeline.amounts import counted, size
from pipeline.ledger.row_counts import RowCounts
from pipeline.settings import Settings
from pipeline.stages.tally import Tally
from pipeline.stores.backends import label_of


def summary_of(stage: str, tally: Tally, settings: Settings, lake: str) -> str:
    """One line for a run of a stage that did work.  lake: the name of the one that it worked for."""
    bucket = label_of(settings.bucket.url) or "the bucket"
    counts = tally.counts
    if stage == "ship":
        rejected = f", {counted(counts.rejected, 'row')} rejected" if counts.rejected else ""
        return (
            f"Summary: transferred {counted(tally.files, 'file')} ({counted(len(tally.partners), 'partner')}) "
            f"to {bucket}: {counted(counts.refs, 'ref')}{rejected}"
        )
    if stage == "compute":
        rate = counts.refs / tally.seconds if tally.seconds else 0.0
        dropped = f", {counted(tally.dropped, 'ref')} discarded that another host had first" if tally.dropped else ""
        failed = f"{counted(counts.failures, 'failure')}{_reasons(tally)}"
        return (
            f"Summary: computed {counted(counts.features, 'feature')}{_damaged(counts)}{_reused(counts)} "
            f"of {counted(counts.refs, 'image')} ({failed}) "
            f"at {rate:.1f} images/s, {size(tally.bytes)} fetched{_archived(counts)}{dropped}{_paced(tally)}"
        )
    if stage == "aggregate":
        alike = (
            f", {counted(counts.alike, 'id')} alike (they differ only in letter case or percent-coding)"
            if counts.alike
            else ""
        )
        return (
            f"Summary: aggregated {counted(len(tally.shipments), 'shipment')}: "
            f"{counted(counts.features, 'feature')}{_damaged(counts)}{_reused(counts)}, "
            f"{counted(counts.failures, 'failure')}, "
            f"{counted(counts.duplicates - counts.alike, 'duplicate')}{alike}"
        )
    url = settings.url_of(lake)
    return f"Summary : Sent {size(tally.bytes)} to {label_of(url) or url.removeprefix('file://')}"


def _paced(tally: Tally) -> str:
    first = next(iter(tally.paced.values()), "")
    return f"; {first}" if first else ""


def _damaged(counts: RowCounts) -> str:
    return f" ({counts.damaged} of torn JPEGs)" if counts.damaged else ""


def _archived(counts: RowCounts) -> str:
    read = f", {counted(counts.from_archive, 'image')} from the archive" if counts.from_archive else ""
    return read + (f", {counts.archived} kept in the archive" if counts.archived else "")


def _reused(counts: RowCounts) -> str:
    return f" ({counts.reused} used again: their images did not change)" if counts.reused else ""


def _reasons(tally: Tally) -> str:
    if not tally.reasons:
        return ""
    return ": " + ", ".join(f"{number} {reason}" for reason, number in sorted(tally.reasons.items()))
