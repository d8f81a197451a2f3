"""Single shipments that cannot go on, however well all others do: which, since when, why, and the way out.  Pure.

A shipment that just waits for its turn is none: what waits for ship or compute counts only where it is the first of its
source, and others have got on since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.amounts import counted
from pipeline.ledger import layout
from pipeline.ledger.layout import ATTEMPT, Keys
from pipeline.ledger.state import REPAIR, ShipmentState, Try, waits_for
from pipeline.stage_names import AGGREGATE, COMPUTE, DELIVER, SHIP
from pipeline.times import HOUR

TRIES = 3
"""So many tries in a row that failed are more than a hiccup."""
FAILING = 600.0
"""And they have failed for so many seconds."""
BEHIND = HOUR
"""Others have got on so much later."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """A shipment that cannot go on."""

    shipment: str
    since: float
    cause: str
    for_good: bool
    """Something of it is gone: no waiting helps."""
    gone: str = ""
    """The key that is gone, where that is the cause."""


def stuck(
    keys: Keys,
    open_: Sequence[tuple[ShipmentState, Mapping[str, float]]],
    now: float,
    moved: float | None,
    hours: float,
    alive: Iterable[str],
) -> tuple[Stuck, ...]:
    """Of the open shipments, with the times of their keys, those that cannot go on, by name.

    moved: when a delivery was last entered into an index, where that is seen.  hours: so long nothing happened to what
    just stays behind.  alive: processes that beat.
    """
    beats = frozenset(alive)
    progress = {state.name: _progress(keys, state, times) for state, times in open_}
    queued: set[tuple[str, str, str]] = set()
    found = []
    for state, times in sorted(open_, key=lambda pair: pair[0].name):
        plan = state.plan
        key = (plan.snapshot.source, plan.set, waits_for(state)) if plan is not None else ("", "", str(state.name))
        first = key not in queued
        queued.add(key)
        if not times or waits_for(state) == REPAIR or state.void:
            continue
        since = progress[state.name]
        others = max((when for name, when in progress.items() if name != state.name), default=0.0)
        left_behind = now - since >= hours * HOUR and max(others, moved or 0.0) > since + BEHIND
        one = _lacks(keys, state, since) or _fails(state, times, now, beats)
        if one is None and left_behind and (first or waits_for(state) not in (SHIP, COMPUTE)):
            one = _behind(state, since, beats)
        if one is not None:
            found.append(one)
    return tuple(found)


def _progress(keys: Keys, state: ShipmentState, times: Mapping[str, float]) -> float:
    """When something of it was last done: attempts are none."""
    top = keys.shipment(state.name)
    done = [when for key, when in times.items() if not ATTEMPT.fullmatch(key.removeprefix(top))]
    return max(done or times.values(), default=0.0)


def _lacks(keys: Keys, state: ShipmentState, since: float) -> Stuck | None:
    """What has to be there and is gone."""
    name = str(state.name)
    if state.plan is None:
        return Stuck(name, since, "its plan is gone", True, keys.plan(state.name))
    if state.out is not None or state.done is not None:
        return None
    wanted = state.end.batches if state.end is not None else max(state.batches, default=-1) + 1
    missing = sorted(set(range(wanted)) - state.batches)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return Stuck(name, since, f"its batch {missing[0]}{more} is gone", True, keys.batch(state.name, missing[0]))
    return None


def _fails(state: ShipmentState, times: Mapping[str, float], now: float, alive: frozenset[str]) -> Stuck | None:
    """Merging or delivering it fails again and again."""
    task, stage = {AGGREGATE: (layout.AGGREGATE, AGGREGATE), DELIVER: (layout.DELIVER, DELIVER)}.get(
        waits_for(state), (None, "")
    )
    failed = list(_failed_last(state.tries.get(task, ()), alive)) if task is not None else []
    since = min((times.get(made.key, now) for made in failed), default=now)
    if len(failed) < TRIES or now - since < FAILING:
        return None
    cause = next((made.end.cause for made in reversed(failed) if made.end is not None and made.end.cause), "")
    return Stuck(
        str(state.name), since, f"{stage} failed {len(failed)} times: {cause or 'its process was lost'}", False
    )


def _failed_last(tries: Sequence[Try], alive: frozenset[str]) -> Iterator[Try]:
    """The tries that failed in a row, up to now; none while one is being made."""
    if any(made.end is None and made.process in alive for made in tries):
        return
    yield from (made for made in tries if made.end is None or made.end.cause != "the run was stopped")


def _behind(state: ShipmentState, since: float, alive: frozenset[str]) -> Stuck | None:
    """Nothing happens to it, and nobody is at it."""
    if any(made.end is None and made.process in alive for tries in state.tries.values() for made in tries):
        return None
    stage = waits_for(state)
    batches = counted(len(state.batches), "batch", "batches")
    what = {
        SHIP: "ship reads it no further (is a file of its source missing?)",
        COMPUTE: f"compute has not finished {_not_computed(state)} of {batches}",
        AGGREGATE: "it is not aggregated",
        DELIVER: "it is not delivered",
    }.get(stage, "it is delivered, and what follows from it (a retry, the next part) is not planned")
    cause = next(
        (
            made.end.cause
            for tries in state.tries.values()
            for made in reversed(tries)
            if made.end is not None and made.end.kind == "strike"
        ),
        "",
    )
    return Stuck(str(state.name), since, f"{what}{f': {cause}' if cause else ''}", False)


def _not_computed(state: ShipmentState) -> int:
    return len(state.batches) - max((len(have) for have in state.results.values()), default=0)
