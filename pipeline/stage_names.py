"""The four stages by name, in the order of the pipeline: in commands, logs, locks, metrics and reports."""

from __future__ import annotations

SHIP, COMPUTE, AGGREGATE, DELIVER = STAGES = ("ship", "compute", "aggregate", "deliver")
ON_THE_LAKE = (SHIP, DELIVER)
"""What a gateway runs: it sees the lake."""
ON_THE_BOX = (COMPUTE, AGGREGATE)
"""What a compute box runs: the bucket is all that it sees."""
