"""Who performs what was planned: this process, or a cluster that it hands the same tasks to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import PipelineError, Stopped
from pipeline.ledger.protocol import Context
from pipeline.stages import aggregate, compute
from pipeline.stages.aggregate import Aggregated, AggregateTask, Origin
from pipeline.stages.compute import Served
from pipeline.stages.opening import BatchTask
from pipeline.stages.publishing import Published


@dataclass(frozen=True)
class Merging:
    """One shipment to aggregate, and under what."""

    task: AggregateTask
    set: str
    origin: Origin


Merge = tuple[Merging, Aggregated | PipelineError | None]
"""What became of one: None when somebody else is at it."""


class Performer(Protocol):
    """Performs tasks of one lake."""

    def compute(
        self, context: Context, served: Served, tasks: Sequence[BatchTask], wanted: Callable[[], bool]
    ) -> Iterator[Published | None]:
        """Batches of one set: what became of each, as it ends; None now and then."""

    def aggregate(self, context: Context, merges: Sequence[Merging], wanted: Callable[[], bool]) -> Iterator[Merge]:
        """What became of each shipment, as it ends."""


class Here:
    """This process performs."""

    def compute(
        self, context: Context, served: Served, tasks: Sequence[BatchTask], wanted: Callable[[], bool]
    ) -> Iterator[Published | None]:
        return compute.perform(context, served, tasks, wanted)

    def aggregate(self, context: Context, merges: Sequence[Merging], wanted: Callable[[], bool]) -> Iterator[Merge]:
        for one in merges:
            if not wanted():
                return
            context.safe_point()
            yield one, merged(context, one)


def merged(context: Context, one: Merging) -> Aggregated | PipelineError | None:
    """Aggregate one shipment; its trouble is a value, so that the rest goes on.  Raises Stopped."""
    feature_set = context.settings.sets[one.set]
    try:
        return aggregate.perform(context, feature_set, one.origin, one.task)
    except Stopped:
        raise
    except PipelineError as error:
        return error
