"""How things stand: the facts of health, and from the same ledger what goes on, how fast, and until when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.ledger import layout
from pipeline.ledger.layout import Task
from pipeline.ledger.protocol import Context
from pipeline.ledger.row_counts import NO_ROWS, RowCounts
from pipeline.ledger.state import Try, waits_for
from pipeline.operations.backfills import Backfill, backfills
from pipeline.operations.health.facts import Backlog, LakeFacts
from pipeline.operations.open_shipments import Entered, OpenShipments
from pipeline.operations.report.ledger import Step, lately, steps
from pipeline.process.host import host_of
from pipeline.stage_names import AGGREGATE, COMPUTE, DELIVER
from pipeline.times import HOUR

DUES = 100
"""Times at which retries are due that are told one by one."""
_STAGES = {layout.AGGREGATE: AGGREGATE, layout.DELIVER: DELIVER}


@dataclass(frozen=True, slots=True)
class Open:
    """One open shipment that is due."""

    lake: str
    shipment: str
    set: str
    stage: str
    """What it waits for."""
    batches: int
    results: int


@dataclass(frozen=True, slots=True)
class Stage:
    """What waits for one stage of a lake, and how fast it gets done."""

    lake: str
    stage: str
    shipments: int
    batches: int
    refs: int
    oldest: float | None
    """Since when the first of them waits; seconds since 1970."""
    last_hour: int
    """Refs that the stage has done in the last hour."""
    seconds_left: float | None
    """At that rate; None where nothing waits, or nothing was done."""


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt whose process beats."""

    lake: str
    host: str
    process: str
    stage: str
    shipment: str
    batch: int | None
    attempt: int
    alone: bool
    since: float


@dataclass(frozen=True, slots=True)
class Due:
    """Retries that wait for the same moment."""

    lake: str
    at: str
    shipments: int


@dataclass(frozen=True)
class Standing:
    """One lake."""

    facts: LakeFacts
    open: tuple[Open, ...]
    stages: tuple[Stage, ...]
    running: tuple[Running, ...]
    retries: tuple[Due, ...]
    backfills: tuple[Backfill, ...] = ()
    last_hour: RowCounts = NO_ROWS
    """What was aggregated in it."""


def standing(context: Context, facts: LakeFacts, opened: OpenShipments) -> Standing:
    """What the ledger adds to a lake's facts.  opened: what they were made of; some shipments of the last day are
    listed besides."""
    found = opened.planned
    later = Counter(hint.due for hint in opened.hints.later.values())
    recent = list(lately(context, facts.now, opened.hints.due))
    done = [step for one in [*found, *recent] for step in steps(context.keys, one)]
    return Standing(
        facts,
        tuple(_open(facts.lake, one) for one in found),
        tuple(_stage(facts.lake, one, _last_hour(done, one.stage, facts.now)) for one in facts.backlog),
        tuple(sorted(_running(facts, found), key=lambda one: (one.host, one.stage, one.since))),
        tuple(Due(facts.lake, at, later[at]) for at in sorted(later)[:DUES]),
        backfills(context, found, facts.now),
        _aggregated(context, [*found, *recent], facts.now),
    )


def _aggregated(context: Context, shipments: Iterable[Entered], now: float) -> RowCounts:
    """In the last hour."""
    outs = ((one.state.out, one.times.get(context.keys.out(one.state.name), 0.0)) for one in shipments)
    return sum((RowCounts.aggregated(out) for out, at in outs if out is not None and at > now - HOUR), NO_ROWS)


def _open(lake: str, one: Entered) -> Open:
    state = one.state
    results = max((len(have) for have in state.results.values()), default=0)
    set_name = state.plan.set if state.plan else ""
    return Open(lake, str(state.name), set_name, waits_for(state), len(state.batches), results)


def _last_hour(done: Iterable[Step], stage: str, now: float) -> int:
    return sum(step.refs for step in done if step.stage == stage and step.at > now - HOUR)


def _stage(lake: str, one: Backlog, last_hour: int) -> Stage:
    left = one.refs * HOUR / last_hour if one.refs and last_hour else None
    return Stage(lake, one.stage, one.shipments, one.batches, one.refs, one.oldest, last_hour, left)


def _running(facts: LakeFacts, found: Sequence[Entered]) -> Iterator[Running]:
    beats = set(facts.alive)
    for one in found:
        for task, tries in one.state.tries.items():
            for made in tries:
                if made.end is None and made.process in beats:
                    yield _attempt(facts.lake, one, task, made)


def _attempt(lake: str, one: Entered, task: Task, made: Try) -> Running:
    return Running(
        lake,
        host_of(made.process),
        made.process,
        _STAGES.get(task, COMPUTE),
        str(one.state.name),
        task.number,
        made.number,
        made.alone,
        one.times.get(made.key, 0.0),
    )
