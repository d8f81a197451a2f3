"""What a host does once a day: forget what may be forgotten, put back lost hints (docs/protocol.md 10), compact."""

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
    if not _due(state / f"pruned.{'-'.join(stages)}", clock, "prune", "nothing is forgotten until then"):
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


def compact_daily(
    lakes: Sequence[Turns], stages: Sequence[str], state: Path, clock: Clock, stopping: Callable[[], bool]
) -> None:
    """Compact each lake where `deliver.compact` asks for it, unless this host did so within a day."""
    if "deliver" not in stages or stopping() or not any(_compacts(lake) for lake in lakes):
        return
    if not _due(state / "compacted", clock, "compact", "nothing is compacted until then"):
        return
    from pipeline.compact.running import Trouble, run

    for lake in lakes:
        if not _compacts(lake):
            continue
        tables = 0
        try:
            for one in run(lake.context):
                if isinstance(one, Trouble):
                    logs.log("compact").warning("%s: %s; the next try is in a day", one.what, one.error)
                else:
                    tables += one.won
        except Stopped:
            return
        except PipelineError as error:
            logs.log("compact").warning("%s; the next try is in a day", error)
            continue
        if tables:
            logs.log("compact").info("Summary: wrote %d current tables of %s", tables, lake.context.lake_name)


def _compacts(lake: Turns) -> bool:
    return lake.context.settings.deliver.compact and lake.context.lake is not None


def _due(mark: Path, clock: Clock, what: str, otherwise: str) -> bool:
    """Whether a day has passed since the mark's time, which is set."""
    if mark.exists() and 0 <= clock.now() - mark.stat().st_mtime < DAY:
        return False
    try:
        mark.touch()
    except OSError as error:
        logs.once(what, f"{typed(error, mark)}; {otherwise}", what)
        return False
    return True
