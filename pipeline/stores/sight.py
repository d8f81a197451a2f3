"""Whether a store can be seen from this host: a compute box knows the lake's name and cannot reach it."""

from __future__ import annotations

from pipeline.errors import PipelineError
from pipeline.stores.store import Lake


def seen(lake: Lake | None) -> Lake | None:
    """The lake where anything at all stands there, else None."""
    if lake is None:
        return None
    try:
        if lake.stat("") is not None or any(True for _ in lake.list("", folders=True)):
            return lake
    except PipelineError:
        return None
    return None
