"""Rounds over all lakes: one turn of each stage of each, and what is still to be done after the last one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.cli.output.summary import summary_of
from pipeline.cli.output.table import Totals
from pipeline.cli.wiring.memory import give_back
from pipeline.ledger.protocol import Context, open_hints, planned
from pipeline.process import logs
from pipeline.stages.loop import LakeStages
from pipeline.stages.tally import Tally


def take_round(
    lakes: Sequence[LakeStages], stages: Sequence[str], totals: Totals, wanted: Callable[[], bool]
) -> tuple[bool, int]:
    """One turn of each stage of each lake: whether anything was done, and how many such rounds see everything."""
    worked, polls = False, 1
    for lake in lakes:
        for stage in stages:
            with totals.meter.turn(lake.context.lake_name, stage) as tally:
                lake.take(stage, wanted, tally)
            totals.add(stage, tally)
            if stage == "ship":
                totals.named[lake.context.lake_name] = lake.named
            say_summary(lake.context, stage, tally)
            worked = worked or tally.worked
            polls = max(polls, tally.polls_to_see_all)
            if tally.stopped:
                return False, polls
            if tally.worked:
                give_back()
    return worked, polls


def say_summary(context: Context, stage: str, tally: Tally) -> None:
    """The line of a turn that did something."""
    if tally.worked:
        logs.log(stage).info("%s", summary_of(stage, tally, context.settings, context.lake_name))


def look_at_the_rest(context: Context, totals: Totals) -> None:
    """What waits for its day, what is open, and what is held; as `status` counts them."""
    hints = open_hints(context)
    for hint in hints.later.values():
        totals.waiting += 1
        totals.next_due = min(totals.next_due or hint.due, hint.due)
    totals.open += sum(planned(context, name) for name in hints.due)
    totals.held += sum(1 for _ in context.bucket.list(context.keys.held_hints))
