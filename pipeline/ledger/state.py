"""A shipment's state, from what exists: the one function that planner, status, health and metrics share.

There is no database and no status field.  What exists under `c/S/` is the state: `plan` (the shipment exists), `b/n`
(a batch is there), `end` (all batches are there), `F/r/n` (a batch has its result under fingerprint F), `out` (it is
aggregated), `done` (it is delivered).  These keys are written once and never changed, so a state that was derived a
moment ago can only be behind, never wrong.

What cannot be read here (damaged, or of a newer Hathi) makes its shipment open, whatever else exists, and nobody works
on it until a person or a newer host has seen to it.

`wanted` says which bodies are needed besides the listing of `c/S/`; they never change, so callers cache them by key.
No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.errors import UNREADABLE
from pipeline.ledger.bodies import Body, NewerFormat
from pipeline.ledger.layout import (
    ATTEMPT,
    BATCH,
    FOLDER,
    LAST_GENERATION,
    LAST_RELEASE_GENERATION,
    RESULT,
    Keys,
    ShipmentName,
    Task,
)
from pipeline.ledger.manifest import Attempt, AttemptEnd, Done, End, Out, Plan

BODIES: dict[str, type[Body]] = {"plan": Plan, "end": End, "out": Out, "done": Done}


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt at a task, as far as its bodies are known."""

    number: int
    key: str
    process: str = ""
    alone: bool = False
    end: AttemptEnd | None = None
    """None: it lives, or its process just stopped."""
    ended: float = 0.0
    """When its end was written, by the store's clock; 0 without one."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something of a shipment that stands there and cannot be read here: damaged, not ours, or of a newer Hathi."""

    key: str
    why: str
    newer: bool = False


@dataclass(frozen=True)
class ShipmentState:
    """Everything that is known of one shipment."""

    name: ShipmentName
    plan: Plan | None = None
    batches: frozenset[int] = frozenset()
    end: End | None = None
    results: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Batches that have THE result, by the first 12 hex of the fingerprint."""
    tries: Mapping[Task, tuple[Try, ...]] = field(default_factory=dict)
    out: Out | None = None
    done: Done | None = None
    newest: float = 0.0
    """The newest time under `c/S/`, by the store's clock."""
    foreign: tuple[str, ...] = ()
    """Keys under `c/S/` that are not ours."""
    unreadable: tuple[Unreadable, ...] = ()
    """Of plan, end, out and done, and what stands in the way of more: the shipment is open, whatever else is there, and
    left alone until a person or a newer host has seen to it."""

    @property
    def planned(self) -> bool:
        """Whether the shipment exists, for all that can be seen from here."""
        return self.plan is not None or bool(self.unreadable)

    @property
    def void(self) -> bool:
        return self.end is not None and self.end.void is not None

    @property
    def given_up(self) -> bool:
        """Whether it ends without features, whatever else is there."""
        return self.void or (self.done is not None and self.done.void is not None)

    @property
    def carries(self) -> bool:
        """Whether retriable failures go on in a child shipment."""
        return self.out is not None and self.out.carried is not None and not self.given_up

    @property
    def complete(self) -> frozenset[str]:
        """Fingerprints (12 hex) under which each batch has its result, once all batches are known."""
        if self.end is None or self.void:
            return frozenset()
        wanted = frozenset(range(self.end.batches))
        if not wanted:
            return frozenset({""})
        return frozenset(f for f, have in self.results.items() if wanted <= have)

    def closed(self, *, child_has_end: bool, next_has_plan: bool) -> bool:
        """docs/protocol.md 9: nothing will ever happen to it again.  What cannot be read may say otherwise: open."""
        if self.unreadable:
            return False
        if self.given_up:
            return True
        if self.done is None or self.end is None:
            return False
        return (not self.carries or child_has_end) and (self.end.next is None or next_has_plan)


READ_FROM_SOURCES = ("source", "again")
"""Kinds of plans whose refs ship reads; those of the others come from the bucket, by the box."""


REPAIR = "repair"


def waits_for(state: ShipmentState) -> str:
    """The stage that has to do something for an open shipment next; `close` where nothing is left but its hint, and
    `repair` where a person has to, or a newer host."""
    if state.unreadable:
        return REPAIR
    if state.given_up:
        return "close"
    if state.plan is None or state.end is None:
        copied = state.plan is not None and state.plan.kind not in READ_FROM_SOURCES
        return "aggregate" if copied else "ship"
    if state.out is None:
        return "aggregate" if state.complete else "compute"
    return "deliver" if state.done is None else "close"


def last_try(name: ShipmentName) -> bool:
    """Whether retriable failures of this generation are final."""
    return name.generation in (LAST_GENERATION, LAST_RELEASE_GENERATION)


def child_of(name: ShipmentName, plan: Plan) -> ShipmentName:
    """The shipment that tries this one's retriable failures again."""
    return ShipmentName.of(
        plan.lake,
        plan.snapshot_digest,
        plan.set,
        name.version,
        name.round,
        name.part,
        name.generation + 1,
        plan.salt,
    )


def next_of(name: ShipmentName, plan: Plan) -> ShipmentName:
    """The next part of the same snapshot and round."""
    return ShipmentName.of(
        plan.lake, plan.snapshot_digest, plan.set, name.version, name.round, name.part + 1, name.generation, plan.salt
    )


def wanted(keys: Keys, name: ShipmentName, listed: Iterable[str], *, settled: bool = True) -> dict[str, type[Body]]:
    """The bodies that `derive` needs: of plan, end, out, done, of each attempt's end, and of the attempts.

    settled: those of tasks that have their result, too, which tell only of the past.
    """
    top = keys.shipment(name)
    rests = [key.removeprefix(top) for key in listed]
    over = set() if settled else set(_settled(rests))
    found: dict[str, type[Body]] = {}
    for rest in rests:
        if rest in BODIES:
            found[top + rest] = BODIES[rest]
        elif (match := ATTEMPT.fullmatch(rest)) and match["task"] not in over:
            found[top + rest] = AttemptEnd if match["ended"] else Attempt
    return found


def is_work(rest: str) -> bool:
    """Whether what stands at `c/S/<rest>` is a result of a batch or an attempt at something."""
    return bool(RESULT.fullmatch(rest) or ATTEMPT.fullmatch(rest))


def _settled(rests: Iterable[str]) -> Iterator[str]:
    """The tasks whose result is among these keys."""
    for rest in rests:
        if match := RESULT.fullmatch(rest):
            yield f"{match['fingerprint']}/t/{match['batch']}"
        elif rest in ("out", "done"):
            yield f"t/{rest}"


def derive(
    keys: Keys,
    name: ShipmentName,
    listed: Iterable[tuple[str, float]],
    bodies: Mapping[str, Body],
    troubles: Mapping[str, Exception] | None = None,
) -> ShipmentState:
    """The state of one shipment.

    listed: (key, time of the store) of everything under `c/S/`.  bodies: what `wanted` asked for, by key; one that is
    absent could not be read.  troubles: by key, why.
    """
    top = keys.shipment(name)
    troubles = troubles or {}
    unreadable: dict[str, Unreadable] = {}
    results: dict[str, set[int]] = {}
    batches: set[int] = set()
    tries: dict[Task, dict[int, Try]] = {}
    foreign: list[str] = []
    newest = 0.0
    listed = list(listed)
    present = {key.removeprefix(top) for key, _ in listed}
    for key, modified in listed:
        rest = key.removeprefix(top)
        newest = max(newest, modified)
        if rest in BODIES:
            if key not in bodies:
                unreadable[key] = _unreadable(key, troubles.get(key))
            continue
        if match := BATCH.fullmatch(rest):
            batches.add(int(match["batch"]))
        elif match := RESULT.fullmatch(rest):
            results.setdefault(match["fingerprint"], set()).add(int(match["batch"]))
        elif match := ATTEMPT.fullmatch(rest):
            note_try(tries.setdefault(Task(match["task"]), {}), key, match, bodies, modified)
        else:
            foreign.append(key)
            if FOLDER.fullmatch(rest) or _hides(rest, present):
                unreadable[key] = Unreadable(
                    key,
                    f"{key} is not Hathi's | Hathi needs this key for a manifest of its own | move the object away",
                )
    plan, end, out, done = (bodies.get(top + which) for which in ("plan", "end", "out", "done"))
    if isinstance(plan, Plan) and _name_of(name, plan) != name:
        why = f"{top}plan is not the plan of {name} | its content belongs to another name | {UNREADABLE}"
        unreadable[f"{top}plan"] = Unreadable(f"{top}plan", why)
        plan = None
    return ShipmentState(
        name=name,
        plan=plan if isinstance(plan, Plan) else None,
        batches=frozenset(batches),
        end=end if isinstance(end, End) else None,
        results={f: frozenset(have) for f, have in results.items()},
        tries={task: tuple(made[number] for number in sorted(made)) for task, made in tries.items()},
        out=out if isinstance(out, Out) else None,
        done=done if isinstance(done, Done) else None,
        newest=newest,
        foreign=tuple(foreign),
        unreadable=tuple(unreadable[key] for key in sorted(unreadable)),
    )


def _hides(rest: str, present: set[str]) -> bool:
    """Whether a foreign key makes a folder of what is a file of ours, in a store where one name is not both."""
    parts = rest.split("/")
    above = ("/".join(parts[:count]) for count in range(1, len(parts)))
    ours = (one for one in above if one in BODIES or any(p.fullmatch(one) for p in (BATCH, RESULT, ATTEMPT)))
    return any(one not in present for one in ours)


def _unreadable(key: str, error: Exception | None) -> Unreadable:
    """error: None where it went away between the listing and its reading."""
    return Unreadable(key, str(error or f"{key} is gone"), isinstance(error, NewerFormat))


def _name_of(name: ShipmentName, plan: Plan) -> ShipmentName:
    """What a shipment with this plan is called."""
    return ShipmentName.of(
        plan.lake, plan.snapshot_digest, plan.set, name.version, name.round, name.part, name.generation, plan.salt
    )


def note_try(
    made: dict[int, Try], key: str, match: re.Match[str], bodies: Mapping[str, Body], modified: float
) -> None:  # fmt: skip
    """Adds what a key says of an attempt.  match: with the groups `number` and `ended`."""
    number = int(match["number"])
    known = made.get(number, Try(number, key.removesuffix(".x")))
    body = bodies.get(key)
    if match["ended"]:
        ended = body if isinstance(body, AttemptEnd) else AttemptEnd(kind="abandoned", cause="not readable")
        made[number] = Try(number, known.key, known.process, known.alone, ended, modified)
    elif isinstance(body, Attempt):
        made[number] = Try(number, key, body.process, body.alone, known.end, known.ended)
    else:
        made[number] = known


FIRST_PAUSE, LONGEST_PAUSE = 1.0, 900.0


def resting(tries: Iterable[Try], now: float) -> bool:
    """Whether a task whose last attempts ended with strikes is not to be tried again yet.

    What a person has to mend is not done over in each poll: after strikes in a row it rests 1, 2, 4 ... seconds, 15
    minutes at the most.  So a short trouble costs nothing, and what was mended goes on soon.  now: the store's time.
    """
    strikes, last = 0, 0.0
    for made in tries:
        if made.end is not None and made.end.kind == "strike":
            strikes, last = strikes + 1, made.ended
        else:
            strikes = 0
    pause = min(FIRST_PAUSE * 2.0 ** min(strikes - 1, 10), LONGEST_PAUSE)
    return bool(strikes) and last <= now < last + pause  # a clock that went back makes nobody wait


@dataclass(frozen=True, slots=True)
class Counted:
    """What happened to a batch so far (docs/protocol.md 5)."""

    next_number: int
    live: bool
    strikes: int = 0
    lost: int = 0
    strikes_alone: int = 0
    lost_alone: int = 0
    cause: str = ""

    def isolated(self, strikes: int, lost: int) -> bool:
        """Whether the batch runs alone from now on."""
        return self.strikes + self.strikes_alone >= strikes or self.lost + self.lost_alone >= lost

    def held(self, strikes_alone: int, lost_alone: int) -> bool:
        return self.strikes_alone >= strikes_alone or self.lost_alone >= lost_alone


def count(tries: Iterable[Try], alive: frozenset[str]) -> Counted:
    """Strikes and losses of a task's attempts.  alive: processes that beat and are not known to be gone."""
    number, live, cause = 0, False, ""
    strikes = lost = strikes_alone = lost_alone = 0
    for made in tries:
        number = made.number
        if made.end is None:
            if made.process in alive:
                live = True
            elif made.alone:
                lost_alone += 1
            else:
                lost += 1
        elif made.end.kind == "strike":
            cause = made.end.cause
            if made.alone:
                strikes_alone += 1
            else:
                strikes += 1
    return Counted(number + 1, live, strikes, lost, strikes_alone, lost_alone, cause)
