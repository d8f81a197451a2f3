"""What comes next for an item in one shipment, and when."""

from __future__ import annotations

from pipeline.ledger.layout import Task
from pipeline.ledger.manifest import Plan
from pipeline.ledger.protocol import Context, readable, state_of
from pipeline.ledger.state import ShipmentState, child_of, count
from pipeline.operations.why.story import Outcome, Ref, shown_time
from pipeline.stages.operator_requests import release_of


def ahead(
    context: Context, state: ShipmentState, refs: tuple[Ref, ...], delivered: tuple[Outcome, ...], now: str
) -> str:
    """One line; "" when nothing more happens.  now: the bucket's time, as a version."""
    if state.plan is None:
        return "unknown: its plan cannot be read here (see `hathi verify`)"
    if state.end is not None and state.end.void is not None:
        return f"nothing: the shipment is void ({state.end.void}); Hathi ships what the source names now"
    if state.done is not None and state.done.void is not None:
        return f"nothing: {state.done.void}; its snapshot was shipped again"
    if state.out is None:
        return _until_out(context, state, state.plan, refs, now)
    carried = [row for row in delivered if row.retriable]
    if carried:
        return _child(context, state, state.plan, now)
    if any(row.reason == "held" for row in delivered):
        return _held(context, state, state.plan, refs)
    if state.done is None:
        return "waits for deliver"
    if any(row.kind == "failure" for row in delivered):
        return "nothing: the failure is final; a newer snapshot with the item tries it again, or `hathi ship --again`"
    return ""


def _until_out(context: Context, state: ShipmentState, plan: Plan, refs: tuple[Ref, ...], now: str) -> str:
    batches = sorted({ref.batch for ref in refs})
    waits = [n for n in batches if not any(n in have for have in state.results.values())]
    if any(ref.outcome.kind == "held" for ref in refs):
        return _held(context, state, plan, refs)
    if plan.due > now:
        return f"is tried again at {shown_time(plan.due)} UTC"
    if waits:
        return _computing(context, state, refs, waits[0])
    if state.end is None:
        return "waits for ship, which is still reading its source"
    computed = max((len(have) for have in state.results.values()), default=0)
    if computed < state.end.batches:
        return f"waits for the other batches: {computed} of {state.end.batches} are computed"
    return "waits for aggregate"


def _computing(context: Context, state: ShipmentState, refs: tuple[Ref, ...], batch: int) -> str:
    running = [made.process for ref in refs if ref.batch == batch for made in ref.tries if made.ended == "runs"]
    if running:
        return f"is being computed by {running[-1]}"
    limits = context.settings.compute
    for task in sorted(state.tries, key=lambda task: task.path):
        if task == Task(f"{task.path[:12]}/t/{batch:05d}"):
            counted = count(state.tries[task], frozenset())
            if counted.held(limits.strikes_alone, limits.lost_alone):
                return "waits for compute, which will put its batch on hold"
            if counted.isolated(limits.strikes, limits.lost):
                return "waits for compute, where its batch runs alone"
    return "waits for compute"


def _child(context: Context, state: ShipmentState, plan: Plan, now: str) -> str:
    name = child_of(state.name, plan)
    child = state_of(context, name)
    if child.plan is None:
        return f"is tried again in {name}, which the compute box does not have planned yet"
    if child.out is not None:
        return f"was tried again in {name}"
    if child.plan.due > now:
        return f"is tried again at {shown_time(child.plan.due)} UTC, in {name}"
    return f"is tried again in {name}, due since {shown_time(child.plan.due)} UTC"


def _held(context: Context, state: ShipmentState, plan: Plan, refs: tuple[Ref, ...]) -> str:
    held = sorted({ref.batch for ref in refs if ref.outcome.kind == "held"})
    if not held:
        return "held: `hathi quarantine list` names its batch"
    release = release_of(state.name, plan, held[0])
    answer = readable(context, context.keys.plan(release), Plan)
    if answer is None:
        return f"held: release it with `hathi quarantine release {state.name}.{held[0]}`, or drop it"
    return "nothing: its batch was dropped" if answer.kind == "drop" else f"was released: see {release}"
