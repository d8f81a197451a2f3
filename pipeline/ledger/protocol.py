"""What every stage needs of the protocol: polling, claiming, committing, beating, checking the law.

A stage works in turns.  A turn begins with one poll: a list of the hints that are due, a list of the beats, and one
list of `c/S/` for each of at most 64 open shipments (docs/protocol.md 9).  From these lists `ledger.state` derives
what each shipment waits for; nothing else decides what there is to do, so any process may stop at any time and any
other one goes on.

Before a process begins a task it claims it: it puts an attempt that names it, with put_new.  Two processes may claim
the same task one after the other, and both may do the work; only one result can be committed, and the other is thrown
away and counted.  A claim saves work; it protects nothing.  What protects is `commit`: put_new, and reading back.

Before anything is committed the law is checked (docs/protocol.md 11): no row may be lost or counted twice at any hop.
Where it does not hold nothing is published.

Each call of a store is made here or in the stage itself, in one thread, so that a test can stop the world between
any two of them.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pipeline.amounts import counted
from pipeline.clock import Process
from pipeline.codec.codecs import Forms
from pipeline.errors import (
    IGNORED,
    FormatError,
    LawBroken,
    NotFound,
    PermanentError,
    PipelineError,
    Stopped,
    TemporaryError,
)
from pipeline.ledger.bodies import Body, body_of, read_body
from pipeline.ledger.commit import put_first
from pipeline.ledger.layout import FIRST_DUE, Keys, ShipmentName, Task, seconds_of, version_of
from pipeline.ledger.manifest import Attempt, AttemptEnd, Plan
from pipeline.ledger.state import ShipmentState, Unreadable, child_of, derive, next_of, wanted
from pipeline.process.scratch import made
from pipeline.recent import Recent
from pipeline.settings import Settings
from pipeline.stores.local import typed
from pipeline.stores.store import Lake, Store

B = TypeVar("B", bound=Body)

SHIPMENTS_OF_A_POLL = 64
CACHED_BODIES = 20_000
SEEN_KEYS = 100_000


def silent(text: str) -> None:
    """Says nothing."""


def silent_once(key: str, text: str) -> None:
    """Says nothing."""


def silent_progress(stage: str, done: int, to_do: int) -> None:
    """Shows nothing."""


def silent_turn(stage: str, tried: Mapping[str, PipelineError | None]) -> None:
    """Notes nothing."""


@dataclass(frozen=True)
class Context:
    """One lake as one process sees it: its stores, its settings, its clock, and how it speaks."""

    lake_name: str
    bucket: Store
    lake: Lake | None
    settings: Settings
    process: Process
    spill: Path
    """A local folder for files on their way."""
    stopping: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = silent
    once: Callable[[str, str], None] = silent_once
    progress: Callable[[str, int, int], None] = silent_progress
    """(stage, so many more done, so many more to do): the second stays 0 where the end is not known."""
    turned: Callable[[str, Mapping[str, PipelineError | None]], None] = silent_turn
    """(stage, what its turn tried and what was wrong with it), as each turn ends."""
    engage: Callable[[str], None] = silent
    """Told that ESTOP stands in the bucket, and where."""
    forms: Forms = field(default_factory=Forms, repr=False)
    bodies: OrderedDict[str, Body] = field(default_factory=OrderedDict, repr=False)
    """Bodies under `c/` never change: cached by key."""
    seen: Recent[str] = field(default_factory=lambda: Recent(SEEN_KEYS), repr=False)
    """Ends of children and plans of next parts that exist."""
    kept: dict[str, object] = field(default_factory=dict, repr=False)
    """What a stage keeps from turn to turn of what it has read, by where it stands."""

    @property
    def keys(self) -> Keys:
        return Keys(self.lake_name)

    def safe_point(self) -> None:
        """Raises Stopped when ESTOP or a signal asks for it."""
        if self.stopping():
            raise Stopped


@dataclass(frozen=True)
class Seen:
    """What one poll found."""

    now: float
    """The store's own time."""
    alive: frozenset[str]
    """Other processes that beat lately and are not known to be gone."""
    states: tuple[ShipmentState, ...]
    due: dict[str, str]
    """The due of each open hint, by shipment."""


@dataclass(frozen=True)
class Beats:
    """What `h/alive` says.  estop: since when ESTOP stands among them, by the store's clock; None: it does not."""

    alive: frozenset[str]
    estop: float | None


@dataclass(frozen=True)
class Hint:
    """That a shipment is open, or was about to be.  due: as the key says it; put: by the store's clock."""

    due: str
    put: float


@dataclass(frozen=True)
class Hints:
    """What `h/open` says, each shipment once."""

    now: float
    """The store's own time."""
    due: dict[ShipmentName, Hint]
    later: dict[ShipmentName, Hint]
    """Those whose day has not come."""


def open_hints(context: Context, *, later: bool = True) -> Hints:
    """The one reading of the hints, for stages and for whoever tells of them; what is not ours is said once.

    later: those that are not due yet, too; without them they cost nothing, since hints sort by their due.
    """
    listing = context.bucket.list(context.keys.open_hints)
    until = version_of(listing.now)
    due: dict[ShipmentName, Hint] = {}
    rest: dict[ShipmentName, Hint] = {}
    for entry in listing:
        when, _, text = entry.key.removeprefix(context.keys.open_hints).partition("/")
        if when > until and not later:
            break
        try:
            name = ShipmentName.parse(text)
            _ = when == FIRST_DUE or seconds_of(when)
        except ValueError:
            context.once(f"hint {entry.key}", f"{entry.key} is not a hint of a shipment; {IGNORED}")
            continue
        (rest if when > until else due).setdefault(name, Hint(when, entry.modified))
    return Hints(listing.now, due, {name: hint for name, hint in rest.items() if name not in due})


def poll(context: Context, *, after: str = "", limit: int = SHIPMENTS_OF_A_POLL) -> Seen:
    """One look at what is open and due (docs/protocol.md 9): its cost is that of open work, not of history.

    after: the shipment where the last poll ended; at most `limit` shipments are read, beginning behind it.
    Raises Stopped where ESTOP stands in the bucket; one that does not answer holds none.
    """
    hints = open_hints(context, later=False)
    names = sorted(hints.due)
    begin = next((i for i, name in enumerate(names) if str(name) > after), 0)
    chosen = (names[begin:] + names[:begin])[:limit]
    states = tuple(_state_or_trouble(context, name) for name in chosen)
    others = others_alive(context, hints.now)
    return Seen(hints.now, others, states, {str(name): hint.due for name, hint in hints.due.items()})


def others_alive(context: Context, now: float) -> frozenset[str]:
    """Other processes that live, as a poll sees them.  now: the store's own time.

    Between two turns nothing is in this process's hands: an attempt of its own without an end was lost on the way.
    Raises Stopped where ESTOP stands in the bucket.
    """
    seen = beats(context, now)
    if seen.estop is not None:
        context.engage(context.keys.estop)
        raise Stopped("stopped", f"ESTOP stands in the bucket: {context.keys.estop}", "hathi start --remote deletes it")
    return seen.alive - {context.process.name}


def _state_or_trouble(context: Context, name: ShipmentName) -> ShipmentState:
    """The state; of a shipment whose keys this host is refused, that."""
    try:
        return state_of(context, name, settled=False)
    except PermanentError as error:
        top = context.keys.shipment(name)
        context.once(top, str(error))
        return ShipmentState(name, unreadable=(Unreadable(top, str(error)),))


def planned(context: Context, name: ShipmentName) -> bool:
    """Whether a hint tells of a shipment: one whose plan was never written is none.  One request, or none."""
    key = context.keys.plan(name)
    return key in context.bodies or exists(context, key)


def alive(context: Context, now: float) -> frozenset[str]:
    """Processes whose beat is young by the store's own time, less those of this host that are gone."""
    return beats(context, now).alive


def beats(context: Context, now: float) -> Beats:
    """Who lives, and whether ESTOP stands there, in one list.  now: the store's own time."""
    prefix = context.keys.alive_hints
    young = now - context.settings.daemon.alive_seconds
    names: set[str] = set()
    estop = None
    for entry in context.bucket.list(prefix):
        name = entry.key.removeprefix(prefix)
        if entry.key == context.keys.estop:
            estop = entry.modified
        elif entry.modified > young and not context.process.gone(name):
            names.add(name)
    return Beats(frozenset(names), estop)


def state_of(context: Context, name: ShipmentName, *, settled: bool = True) -> ShipmentState:
    """The state of one shipment: one listing, and the bodies that are not cached yet.

    settled: with the attempts at tasks that have their result.
    """
    keys = context.keys
    listed = [(entry.key, entry.modified) for entry in context.bucket.list(keys.shipment(name))]
    return state_from(context, name, listed, settled=settled)


def state_from(
    context: Context, name: ShipmentName, listed: Sequence[tuple[str, float]], *, settled: bool = True
) -> ShipmentState:
    """The state of one shipment whose keys were listed; what cannot be read of it is said once."""
    bodies: dict[str, Body] = {}
    troubles: dict[str, Exception] = {}
    for key, kind in wanted(context.keys, name, (key for key, _ in listed), settled=settled).items():
        try:
            bodies[key] = body_at(context, key, kind)
        except (NotFound, FormatError) as error:
            troubles[key] = error
            if isinstance(error, FormatError):
                context.once(key, str(error))
    state = derive(context.keys, name, listed, bodies, troubles)
    for one in state.unreadable:
        if one.key not in troubles:
            context.once(one.key, one.why)
    return state


def readable(context: Context, key: str, kind: type[B]) -> B | None:
    """The body at a key; None where it is absent, not ours, or newer than this host, which is said once."""
    try:
        return body_at(context, key, kind)
    except NotFound:
        return None
    except FormatError as error:
        context.once(key, str(error))
        return None


def body_at(context: Context, key: str, kind: type[B]) -> B:
    """The body at a key, from the cache when it was read before.  Raises NotFound, FormatError, NewerFormat."""
    cached = context.bodies.get(key)
    if isinstance(cached, kind):
        with contextlib.suppress(KeyError):  # another thread has just let it go
            context.bodies.move_to_end(key)
        return cached
    body = read_body(context.bucket, kind, key)
    context.bodies[key] = body
    while len(context.bodies) > CACHED_BODIES:
        context.bodies.popitem(last=False)
    return body


def exists(context: Context, key: str) -> bool:
    """One request."""
    return any(entry.key == key for entry in context.bucket.list(key, until=key))


def known_to_exist(context: Context, key: str) -> bool:
    """Whether a key of `c/` exists; once seen it is there for good, and not asked for again."""
    if key not in context.seen and exists(context, key):
        context.seen.add(key)
    return key in context.seen


def commit(context: Context, key: str, body: B) -> tuple[bool, B]:
    """put_new with read-back: whether we won, and the body that stands there now (docs/protocol.md 2)."""
    mine = body.model_copy(update={"nonce": context.process.nonce()})
    encoded = mine.encode()
    stands = put_first(context.bucket, key, encoded, context.process.clock.sleep)
    if stands == encoded:
        return True, mine
    return False, body_of(type(body), stands, key)


def announce(context: Context, name: ShipmentName, plan: Plan) -> tuple[bool, Plan]:
    """The hint, then the plan that it announces."""
    context.bucket.put(context.keys.open_hint(plan.due, name), b"")
    return commit(context, context.keys.plan(name), plan)


def claim(context: Context, name: ShipmentName, task: Task, number: int, *, alone: bool = False) -> bool:
    """Begin attempt `number`; False when somebody else did."""
    body = Attempt(process=context.process.name, at=version_of(context.process.clock.now()), alone=alone)
    won, _ = commit(context, context.keys.attempt(name, task, number), body)
    return won


def give_up(context: Context, name: ShipmentName, task: Task, number: int, end: AttemptEnd) -> None:
    """Say that an attempt ended without a result."""
    commit(context, context.keys.attempt_end(name, task, number), end)


def ended(context: Context, name: ShipmentName, task: Task, number: int, error: BaseException) -> None:
    """Say that an attempt ended by an error."""
    give_up(context, name, task, number, end_by(error))


def end_by(error: BaseException) -> AttemptEnd:
    """The end of an attempt by an error: what will not work however often it is tried is a strike, and rests."""
    if isinstance(error, PipelineError) and not isinstance(error, Stopped | TemporaryError):
        return AttemptEnd(kind="strike", cause=error.message[:500])
    cause = error.message[:500] if isinstance(error, TemporaryError) else "the run was stopped"
    return AttemptEnd(kind="abandoned", cause=cause)


def beat(context: Context, serves: Sequence[str] = ()) -> None:
    """Say that this process lives, and look for ESTOP in the bucket: a turn may last for hours without a poll.

    serves: the stages of a daemon, which is missed once it does not beat any more; none of a run that comes and goes.
    """
    context.bucket.put(context.keys.alive_hint(context.process.name), " ".join(serves).encode())
    if beats(context, 0.0).estop is not None:
        context.engage(context.keys.estop)


def leave(context: Context) -> None:
    """Say that this process ends, with nothing claimed."""
    context.bucket.delete(context.keys.alive_hint(context.process.name))


def close_if_done(context: Context, state: ShipmentState, due: str = FIRST_DUE) -> bool:
    """Delete the hint of a shipment to which nothing will happen any more; closed is stable (docs/protocol.md 9)."""
    if state.plan is None or not is_closed(context, state):
        return False
    gone = context.keys.gone_hint(state.name)
    if state.void and state.plan.kind in ("source", "again") and not exists(context, gone):
        context.bucket.put(gone, b"")  # should its files come back as they were, they are shipped in a new round
    context.bucket.delete(context.keys.open_hint(due, state.name))
    return True


def is_closed(context: Context, state: ShipmentState) -> bool:
    """Looks at child and next part only once `done` exists."""
    if state.unreadable:
        return False
    if state.given_up:
        return True
    if state.plan is None or state.end is None or state.done is None:
        return False
    keys = context.keys
    child = not state.carries or known_to_exist(context, keys.end(child_of(state.name, state.plan)))
    follows = state.end.next is None or known_to_exist(context, keys.plan(next_of(state.name, state.plan)))
    return state.closed(child_has_end=child, next_has_plan=follows)


def law(where: str, left: int, **right: int) -> None:
    """The conservation law at one hop (docs/protocol.md 11).  Raises LawBroken: nothing is published."""
    if left != sum(right.values()):
        terms = " + ".join(f"{count} {word}" for word, count in right.items())
        raise LawBroken(
            f"row counts do not add up at {where}",
            f"{counted(left, 'row')}, but {terms}",
            "nothing was published; this is a bug in Hathi: please report it",
        )


@contextlib.contextmanager
def scratch(context: Context) -> Iterator[Path]:
    """A folder of our own on the local disk, gone afterwards; what the disk refuses becomes a typed error."""
    try:
        with tempfile.TemporaryDirectory(dir=made(context.spill)) as folder:
            yield Path(folder)
    except OSError as error:
        raise typed(error, context.spill) from error
