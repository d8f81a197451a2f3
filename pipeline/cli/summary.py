"""The Summary line of a run, in the original's words."""

from __future__ import annotations

from pipeline.settings import Settings
from pipeline.turns import Tally

MB = 1_000_000


def summary_of(stage: str, tally: Tally, settings: Settings) -> str:
    """One line for a run of a stage that did work."""
    bucket = "S3" if settings.bucket.url.startswith("s3://") else "the bucket"
    if stage == "ship":
        rejected = f", {tally.rejected} rows rejected" if tally.rejected else ""
        return (
            f"Summary: transferred {tally.files} files ({len(tally.partners)} partners) to {bucket}: "
            f"{tally.refs} refs{rejected}"
        )
    if stage == "compute":
        rate = tally.refs / tally.seconds if tally.seconds else 0.0
        return (
            f"Summary: computed {tally.features} features of {tally.refs} images ({tally.failures} failures"
            f"{_reasons(tally)}) at {rate:.1f} images/s, {tally.bytes / MB:.1f} MB fetched"
        )
    if stage == "aggregate":
        return (
            f"Summary: aggregated {len(tally.shipments)} shipments: {tally.features} features, "
            f"{tally.failures} failures, {tally.duplicates} duplicates"
        )
    lake = "HDFS" if any(lake.url.startswith("hdfs://") for lake in settings.lakes.values()) else "the lake"
    return f"Summary : Sent {tally.bytes / MB:.0f} MB to {lake}: {len(tally.shipments)} shipments"


def _reasons(tally: Tally) -> str:
    if not tally.reasons:
        return ""
    return ": " + ", ".join(f"{number} {reason}" for reason, number in sorted(tally.reasons.items()))
