"""The aggregate stage of one lake: what is whole is merged, and what follows from it is planned."""

from __future__ import annotations

from pipeline.errors import PipelineError
from pipeline.ledger.protocol import Seen, state_of
from pipeline.ledger.state import ShipmentState
from pipeline.stages import aggregate, derived_shipments, retries
from pipeline.stages.aggregate import Aggregated, AggregateTask, Origin
from pipeline.stages.following import Computable
from pipeline.stages.performer import Merging, Performer
from pipeline.stages.served_sets import ServedSets
from pipeline.stages.turn import Turn


class Aggregating:
    """What a process keeps of the aggregate stage from turn to turn: its sets, and who performs."""

    def __init__(self, sets: ServedSets, performer: Performer) -> None:
        self._sets = sets
        self._performer = performer

    def turn(self, one: Turn) -> None:
        """Merge what is whole; then plan retries, write the refs of derived shipments, and close what is done."""
        seen = one.poll()
        self._merge(one, self._sets.agreed(seen))
        if one.wanted():
            _follow(one, seen)

    def _merge(self, one: Turn, seen: Seen) -> None:
        computable = self._sets.computable(seen)
        merges = [self._merging(task, computable[task.state.name]) for task in aggregate.plan(seen, computable)]
        for merging, outcome in self._performer.aggregate(one.context, merges, one.wanted):
            one.attempt(f"aggregate {merging.task.state.name}", _aggregated, one, outcome)

    def _merging(self, task: AggregateTask, one: Computable) -> Merging:
        served = self._sets[one.asked]
        return Merging(task, one.asked.set, Origin(one.fingerprint, served.engine, served.preprocessing))


def _aggregated(one: Turn, done: Aggregated | PipelineError | None) -> None:
    """Count what became of a merge, and plan its retry.  None: somebody else is at it."""
    if isinstance(done, PipelineError):
        raise done
    if done is None:
        return
    if not done.won:
        one.drop(str(done.name), done.out.refs)
        return
    context = one.context
    one.tally.add_shipment(done.name, done.out)
    context.progress("aggregate", done.out.refs, 0)
    retries.retry(context, state_of(context, done.name, settled=False))


def _follow(one: Turn, seen: Seen) -> None:
    context = one.context
    for state in retries.plan_children(seen.states, context):
        context.safe_point()
        one.attempt(f"retry of {state.name}", retries.retry, context, state)
    for state in derived_shipments.plan(seen.states):
        context.safe_point()
        one.attempt(f"{state.plan.kind if state.plan else ''} {state.name}", _derive, one, state)
    for state in seen.states:
        one.attempt(f"close {state.name}", one.close, seen, state)


def _derive(one: Turn, state: ShipmentState) -> None:
    if derived_shipments.perform(one.context, state):
        one.tally.tasks += 1
