"""What a host does once a day: forget what may be forgotten, put back lost hints (docs/protocol.md 10), compact."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.clock import Clock
from pipeline.errors import PipelineError, Stopped
from pipeline.operations.forget import Outcome, forget
from pipeline.operations.prune import Pruned, Pruner
from pipeline.process import logs
from pipeline.stage_names import COMPUTE, SHIP
from pipeline.stages.loop import LakeStages
from pipeline.stores.local import typed
from pipeline.times import DAY

PRUNING = (SHIP, COMPUTE)
"""The programs that prune: one of the gateway's, which sees the sources, and the compute box's."""


def prune_daily(
    lakes: Sequence[LakeStages], stages: Sequence[str], state: Path, clock: Clock, stopping: Callable[[], bool]
) -> None:
    """Some of today's prune of each lake: at most prune.turn_seconds of it, and the next turn goes on.

    A day's pass begins a day after the one before did.  Its mark is a file in the state folder: its time says when the
    pass began, and while it is under way it holds how far each lake has come.
    """
    if not set(stages) & set(PRUNING) or stopping():
        return
    mark = state / f"pruned.{'-'.join(stages)}"
    left = _under_way(mark)
    if not left:
        if not _due(mark, clock, "prune", "nothing is deleted until then"):
            return
        left = {lake.context.lake_name: "" for lake in lakes}
    for lake in lakes:
        name = lake.context.lake_name
        if name not in left:
            continue
        ends = clock.monotonic() + lake.context.settings.prune.turn_seconds
        try:
            for one in () if left[name] else forget(lake.context):
                _told(one)
            pruned = Pruner(lake.context, lake.look).some(left[name], lambda ends=ends: clock.monotonic() < ends)  # type: ignore[misc]
        except Stopped:
            return
        except PipelineError as error:
            logs.log("prune").warning("%s; Hathi tries it again in a day", error)
            pruned = Pruned(0, None)
        left[name] = pruned.after or ""
        if pruned.after is None:
            del left[name]
        _note(mark, left)
        if pruned.number:
            logs.log("prune").info(
                "Summary: deleted or restored %d objects of %s (old data deleted, lost hints restored)",
                pruned.number,
                name,
            )


def _told(one: Outcome) -> None:
    """Say what became of a request to forget, by its number: the log must not name whom it is about."""
    open_ = f"; it stays open: {'; '.join(one.waiting)}" if one.waiting else "; it is done"
    notes = "".join(f"; {what}" for what in one.notes)
    logs.log("prune").info("Request %d to forget: deleted %s%s%s", one.number, one.gone, open_, notes)


def _under_way(mark: Path) -> dict[str, str]:
    """By lake: how far the pass has come that this host has begun; empty where none is under way."""
    try:
        found = json.loads(mark.read_text("utf-8"))
        return {str(lake): str(after) for lake, after in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _note(mark: Path, left: dict[str, str]) -> None:
    """Write how far it has come, the mark's time unchanged; where that cannot be, the pass is at its end for today."""
    with contextlib.suppress(OSError):
        began = mark.stat().st_mtime_ns
        temporary = mark.with_name(f".{mark.name}")
        temporary.write_text(json.dumps(left, sort_keys=True) if left else "", "utf-8")
        os.utime(temporary, ns=(began, began))
        os.replace(temporary, mark)


def compact_daily(
    lakes: Sequence[LakeStages], stages: Sequence[str], state: Path, clock: Clock, stopping: Callable[[], bool]
) -> None:
    """Compact each lake where `deliver.compact` asks for it, unless this host did so within a day."""
    if "deliver" not in stages or stopping() or not any(_compacts(lake) for lake in lakes):
        return
    if _due(state / "compacted", clock, "compact", "nothing is compacted until then"):
        _compact(lakes, "Hathi tries it again in a day")


def compact_now(lakes: Sequence[LakeStages], stages: Sequence[str], stopping: Callable[[], bool]) -> None:
    """Compact each lake where `deliver.compact` asks for it, whenever that was done last: for a list of one's own."""
    if "deliver" in stages and not stopping():
        _compact(lakes, "the next run tries it again")


def _compact(lakes: Sequence[LakeStages], otherwise: str) -> None:
    from pipeline.stages.compact.running import Trouble, run

    for lake in lakes:
        if not _compacts(lake):
            continue
        tables = 0
        try:
            for one in run(lake.context):
                if isinstance(one, Trouble):
                    logs.log("compact").warning("%s: %s; %s", one.what, one.error, otherwise)
                else:
                    tables += one.won
        except Stopped:
            return
        except PipelineError as error:
            logs.log("compact").warning("%s; %s", error, otherwise)
            continue
        if tables:
            logs.log("compact").info("Summary: wrote %d current tables of %s", tables, lake.context.lake_name)


def _compacts(lake: LakeStages) -> bool:
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
