"""What a training waits for, from what exists: the one function that boxes, commands and prune share.

There is no database and no status field.  What exists under `j/J/` is the state: `spec` (the training exists), `s/N` (a
snapshot), `out` (its model, or why there is none), `stop` (a person ends it).  What cannot be read here, or a chain
whose links do not fit, makes everybody leave the training alone until a person or a newer host has seen to it.

No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.errors import UNREADABLE
from pipeline.ledger.bodies import Body, NewerFormat
from pipeline.ledger.layout import JOB_ATTEMPT, SNAPSHOT, JobKeys, JobName
from pipeline.ledger.manifest import Attempt
from pipeline.ledger.state import Counted, Try, Unreadable, count, note_try
from pipeline.ledger.trainings import JobAttemptEnd, JobOut, JobParent, JobSnapshot, JobSpec, JobStop, Reached

BODIES: dict[str, type[Body]] = {"spec": JobSpec, "out": JobOut, "stop": JobStop}


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nobody trains.  iteration: of the newest snapshot."""

    iteration: int


@dataclass(frozen=True, slots=True)
class Running:
    """Somebody trains, from this snapshot on."""

    iteration: int
    process: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """A person ended it."""

    iteration: int
    by: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It ended without a model."""

    iteration: int
    cause: str


@dataclass(frozen=True, slots=True)
class Finished:
    """It has its model."""

    iteration: int


Standing = Waiting | Running | Stopped | Failed | Finished


@dataclass(frozen=True)
class Job:
    """Everything that is known of one training."""

    name: JobName
    spec: JobSpec | None = None
    iterations: tuple[int, ...] = ()
    """Of all snapshots, in order."""
    snapshots: Mapping[int, JobSnapshot] = field(default_factory=dict)
    """Those whose bodies are known, the newest among them."""
    tries: tuple[Try, ...] = ()
    out: JobOut | None = None
    stop: JobStop | None = None
    newest_key: float = 0.0
    """The newest time under `j/J/`, by the store's clock."""
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def newest(self) -> JobSnapshot | None:
        """The last link of the chain."""
        return self.snapshots.get(self.iterations[-1]) if self.iterations else None

    @property
    def start(self) -> Reached | None:
        """Where a training goes on: at the newest snapshot, or at a parting that came from it; None: at the start."""
        newest = self.newest
        link = parent_of(newest)
        found: Reached | None = newest
        for made in self.tries:
            parting = made.end.parting if isinstance(made.end, JobAttemptEnd) else None
            if parting is not None and parting.parent == link and (not found or parting.iteration > found.iteration):
                found = parting
        return found

    @property
    def closed(self) -> bool:
        """Whether nothing will ever be computed for it any more."""
        return not self.unreadable and (self.out is not None or self.stop is not None)

    def since_progress(self, alive: frozenset[str]) -> Counted:
        """Strikes and losses since the newest snapshot; and whether anybody trains, from any snapshot on."""
        made = count(self.recent, alive)
        whole = count(self.tries, alive)
        return Counted(whole.next_number, whole.live, made.strikes, made.lost, cause=made.cause)

    @property
    def recent(self) -> tuple[Try, ...]:
        """Attempts that brought no snapshot: those behind the one that wrote the newest."""
        newest = self.newest
        return tuple(made for made in self.tries if newest is None or made.number > newest.attempt)

    def standing(self, alive: frozenset[str]) -> Standing:
        """alive: processes that beat and are not known to be gone."""
        iteration = self.iterations[-1] if self.iterations else 0
        if self.out is not None:
            if self.out.kind == "failed":
                return Failed(self.out.iteration, self.out.cause)
            return Finished(self.out.iteration)
        if self.stop is not None:
            return Stopped(iteration, self.stop.by)
        for made in reversed(self.tries):
            if made.end is None and made.process in alive:
                return Running(iteration, made.process)
        return Waiting(iteration)


def parent_of(snapshot: Reached | None) -> JobParent | None:
    """How the next snapshot names this one."""
    return JobParent(iteration=snapshot.iteration, digest=snapshot.digest()) if snapshot is not None else None


def wanted(keys: JobKeys, listed: Iterable[str], *, chain: bool = False) -> dict[str, type[Body]]:
    """The bodies that `derive` needs.  chain: of all snapshots; else of the last two, which tell where to go on."""
    found: dict[str, type[Body]] = {}
    snapshots: list[str] = []
    for key in listed:
        rest = key.removeprefix(keys.top)
        if rest in BODIES:
            found[key] = BODIES[rest]
        elif match := JOB_ATTEMPT.fullmatch(rest):
            found[key] = JobAttemptEnd if match["ended"] else Attempt
        elif SNAPSHOT.fullmatch(rest):
            snapshots.append(key)
    found.update(dict.fromkeys(snapshots if chain else snapshots[-2:], JobSnapshot))
    return found


def derive(
    keys: JobKeys,
    listed: Iterable[tuple[str, float]],
    bodies: Mapping[str, Body],
    troubles: Mapping[str, Exception] | None = None,
) -> Job:
    """The state of one training.

    listed: (key, time of the store) of everything under `j/J/`, in order.  bodies: what `wanted` asked for, by key.
    troubles: why one of them could not be read.
    """
    troubles = troubles or {}
    tries: dict[int, Try] = {}
    iterations: list[int] = []
    snapshots: dict[int, JobSnapshot] = {}
    unreadable: list[Unreadable] = []
    newest = 0.0
    for key, modified in listed:
        rest = key.removeprefix(keys.top)
        newest = max(newest, modified)
        body = bodies.get(key)
        if key in troubles and not JOB_ATTEMPT.fullmatch(rest):
            unreadable.append(Unreadable(key, str(troubles[key]), isinstance(troubles[key], NewerFormat)))
        if match := SNAPSHOT.fullmatch(rest):
            iterations.append(int(match["iteration"]))
            if isinstance(body, JobSnapshot):
                snapshots[iterations[-1]] = body
        elif match := JOB_ATTEMPT.fullmatch(rest):
            note_try(tries, key, match, bodies, modified)
    spec, out, stop = (bodies.get(key) for key in (keys.spec, keys.out, keys.stop))
    if isinstance(spec, JobSpec) and spec.name() != keys.name:
        unreadable.append(_misplaced(keys.spec, f"the spec of {keys.name}"))
        spec = None
    unreadable += [_misplaced(keys.snapshot(n), why) for n, why in _breaks(iterations, snapshots)]
    return Job(
        name=keys.name,
        spec=spec if isinstance(spec, JobSpec) else None,
        iterations=tuple(iterations),
        snapshots=snapshots,
        tries=tuple(tries[number] for number in sorted(tries)),
        out=out if isinstance(out, JobOut) else None,
        stop=stop if isinstance(stop, JobStop) else None,
        newest_key=newest,
        unreadable=tuple(unreadable),
    )


def _breaks(iterations: list[int], snapshots: Mapping[int, JobSnapshot]) -> Iterable[tuple[int, str]]:
    """Snapshots that are no link: each names the one before it, by iteration and digest."""
    for before, iteration in zip([None, *iterations], iterations, strict=False):
        one = snapshots.get(iteration)
        if one is None:
            continue
        named = one.parent.iteration if one.parent is not None else None
        known = snapshots.get(before) if before is not None else None
        if one.iteration != iteration:
            yield iteration, f"a snapshot of iteration {iteration}"
        elif named != before or (known is not None and one.parent != parent_of(known)):
            yield iteration, f"a snapshot that comes from the one before it ({before or 0})"


def _misplaced(key: str, what: str) -> Unreadable:
    return Unreadable(key, f"{key} is not {what} | its content belongs to another training | {UNREADABLE}")
