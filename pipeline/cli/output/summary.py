"""The Summary line of a run, in the original's words."""

from __future__ import annotations

from pipeline.ledger.row_counts import RowCounts
from pipeline.settings import Settings
from pipeline.stages.tally import Tally
from pipeline.stores.backends import label_of

MB = 1_000_000


def summary_of(stage: str, tally: Tally, settings: Settings, lake: str) -> str:
    """One line for a run of a stage that did work.  lake: the name of the one that it worked for."""
    bucket = label_of(settings.bucket.url) or "the bucket"
    counts = tally.counts
    if stage == "ship":
        rejected = f", {counts.rejected} rows rejected" if counts.rejected else ""
        return (
            f"Summary: transferred {tally.files} files ({len(tally.partners)} partners) to {bucket}: "
            f"{counts.refs} refs{rejected}"
        )
    if stage == "compute":
        rate = counts.refs / tally.seconds if tally.seconds else 0.0
        dropped = f", {tally.dropped} refs dropped that another host had first" if tally.dropped else ""
        failed = f"{counts.failures} failures{_reasons(tally)}"
        return (
            f"Summary: computed {counts.features} features{_damaged(counts)} of {counts.refs} images ({failed}) "
            f"at {rate:.1f} images/s, {tally.bytes / MB:.1f} MB fetched{dropped}"
        )
    if stage == "aggregate":
        alike = f", {counts.alike} ids alike (in letter case or percent-coding they differ)" if counts.alike else ""
        return (
            f"Summary: aggregated {len(tally.shipments)} shipments: {counts.features} features{_damaged(counts)}, "
            f"{counts.failures} failures, {counts.duplicates - counts.alike} duplicates{alike}"
        )
    url = settings.lakes[lake].url
    return f"Summary : Sent {tally.bytes / MB:.0f} MB to {label_of(url) or url.removeprefix('file://')}"


def _damaged(counts: RowCounts) -> str:
    return f" ({counts.damaged} of torn JPEGs)" if counts.damaged else ""


def _reasons(tally: Tally) -> str:
    if not tally.reasons:
        return ""
    return ": " + ", ".join(f"{number} {reason}" for reason, number in sorted(tally.reasons.items()))
