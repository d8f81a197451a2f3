"""What a host does once a day: forget what may be forgotten, put back lost hints (PROTOCOL 10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import logs
from pipeline.clock import Clock
from pipeline.errors import PipelineError, Stopped
from pipeline.stores.local import typed
from pipeline.turns import Turns

DAY = 86400.0
STAGES = ("ship", "compute")
"""The programs that prune: one of the gateway's, which sees the sources, and the compute box's."""


def prune_daily(
    lakes: Sequence[Turns], stages: Sequence[str], state: Path, clock: Clock, stopping: Callable[[], bool]
) -> None:
    """Prune each lake unless this host did so within a day; the mark is a file's time in the state folder."""
    if not set(stages) & set(STAGES) or stopping():
        return
    mark = state / f"pruned.{'-'.join(stages)}"
    if mark.exists() and 0 <= clock.now() - mark.stat().st_mtime < DAY:
        return
    try:
        mark.touch()
    except OSError as error:
        logs.once("prune", f"{typed(error, mark)}; nothing is forgotten until then", "prune")
        return
    for lake in lakes:
        try:
            number = lake.prune()
        except Stopped:
            return
        except PipelineError as error:
            logs.log("prune").warning("%s; the next try is in a day", error)
            continue
        if number:
            logs.log("prune").info("Summary: forgot or put back %d things of %s", number, lake.context.lake_name)
