"""A seeded scheduler: every call of a store is a step at which a process may be killed, frozen, or left unanswered."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from greenlet import greenlet

from pipeline.errors import Exists, NotFound, TemporaryError, Unknown
from tests.simulation.world import HandClock

CHANGES = {"put", "put_new", "delete", "rename_new", "rename_over", "make_folder", "delete_folder"}

RARE = {"rename_new": 10.0, "rename_over": 10.0, "put_new": 3.0, "commit": 3.0}
"""Verbs whose lost answers matter most, and how much likelier than others they are."""


class Killed(BaseException):
    """The process is no more; nothing of it has an effect any longer."""


@dataclass
class Chances:
    """How likely each fault is at a step."""

    kill: float = 0.004
    freeze: float = 0.002
    unanswered: float = 0.02
    freeze_seconds: tuple[float, float] = (60.0, 1200.0)
    freeze_kind: float = 0.2
    """Of freezes: those that stop both processes of a kind."""


@dataclass
class Proc:
    """A process of the simulated world; it is started anew after it was killed."""

    kind: str
    number: int
    body: Callable[[Proc], None]
    lives: int = 0
    dead: bool = False
    wakes: float = 0.0
    frozen: float = 0.0
    beaten: float = float("-inf")
    beat: Callable[[], None] | None = None
    thread: greenlet | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}{self.number}.{self.lives}"


@dataclass
class Late:
    """An effect whose answer was lost and that is still on its way."""

    step: int
    proc: Proc
    effect: Callable[[], object]


@dataclass
class Scheduler:
    """Runs processes one step at a time, as the seed says."""

    seed: int
    hand: HandClock
    chances: Chances = field(default_factory=Chances)
    procs: list[Proc] = field(default_factory=list)
    steps: int = 0
    faults: bool = True
    trace: list[str] = field(default_factory=list)
    late: list[Late] = field(default_factory=list)
    after_step: Callable[[], None] = lambda: None
    counts: dict[str, int] = field(default_factory=dict)
    beat_seconds: float = 120.0
    step_seconds: float = 0.4
    """So long a step takes at most."""
    only: frozenset[int] | None = None
    """Of a shorter trace: the steps at which faults may strike (None: all)."""
    struck: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self._hub = greenlet.getcurrent()
        self.running: Proc | None = None

    def add(self, kind: str, body: Callable[[Proc], None]) -> Proc:
        number = sum(1 for proc in self.procs if proc.kind == kind)
        proc = Proc(kind, number, body)
        self.procs.append(proc)
        return proc

    def close(self) -> None:
        """End every process where it stands, so that nothing of a world outlives it."""
        for proc in self.procs:
            proc.dead = True
            if proc.thread is not None and not proc.thread.dead:
                proc.thread.throw(Killed)

    # --- what a process calls ---

    def gate(self, proc: Proc, life: int) -> Callable[[str, str, Callable[[], object]], object]:
        """The gate of one life of a process, through which each of its calls passes."""

        def pass_through(verb: str, key: str, effect: Callable[[], object]) -> object:
            if proc.dead or proc.lives != life:
                raise Killed
            if greenlet.getcurrent() is self._hub:
                return effect()
            action = self._hub.switch(verb)
            if proc.dead or proc.lives != life:
                raise Killed
            return self._do(proc, str(action), verb, key, effect)

        return pass_through

    def sleep(self, proc: Proc, seconds: float) -> None:
        if proc.dead:
            raise Killed
        proc.wakes = self.hand.at + seconds
        self._hub.switch("sleep")
        if proc.dead:
            raise Killed

    def _do(self, proc: Proc, action: str, verb: str, key: str, effect: Callable[[], object]) -> object:
        if action != "go":
            self.counts[f"{action} {verb}"] = self.counts.get(f"{action} {verb}", 0) + 1
        if action == "kill before":
            self._kill(proc)
        if action == "lost before":
            raise self._unanswered(verb, key)
        if action == "late":
            self.late.append(Late(self.steps + self.random.randint(1, 60), proc, effect))
            raise self._unanswered(verb, key)
        if action == "lost after":
            with contextlib.suppress(Exists, NotFound):
                effect()
            raise self._unanswered(verb, key)
        result = effect()
        if action == "kill after":
            self._kill(proc)
        return result

    def _unanswered(self, verb: str, key: str) -> TemporaryError:
        kind = Unknown if verb in ("put_new", "rename_new", "rename_over", "commit") else TemporaryError
        return kind(f"no answer to {verb} {key}")

    def _kill(self, proc: Proc) -> None:
        proc.dead = True
        raise Killed

    # --- the hub ---

    def step(self) -> bool:
        """One step of one process; False when all sleep and nothing is on its way."""
        self.steps += 1
        self._arrive()
        proc = self._next()
        if proc is None:
            return False
        self.hand.at += self.random.random() * self.step_seconds
        self._beat()
        if proc.thread is None or proc.thread.dead or proc.dead:
            self._start(proc)
        assert proc.thread is not None
        action = self._action(proc) if proc.lives and getattr(proc, "pending", None) else "go"
        self.running = proc
        said = proc.thread.switch(action)
        proc.pending = said if said != "sleep" else None  # type: ignore[attr-defined]
        self.after_step()
        return True

    def _start(self, proc: Proc) -> None:
        proc.lives += 1
        proc.dead = False
        proc.beaten = float("-inf")
        proc.pending = None  # type: ignore[attr-defined]

        def live(_: object) -> str:
            with contextlib.suppress(Killed):
                proc.body(proc)
            return "sleep"

        proc.thread = greenlet(live, self._hub)

    def _next(self) -> Proc | None:
        awake = [p for p in self.procs if max(p.wakes, p.frozen) <= self.hand.at]
        if not awake:
            if not self.procs:
                return None
            self.hand.at = min(max(p.wakes, p.frozen) for p in self.procs)
            awake = [p for p in self.procs if max(p.wakes, p.frozen) <= self.hand.at]
        return self.random.choice(awake)

    def _action(self, proc: Proc) -> str:
        verb = proc.pending  # type: ignore[attr-defined]
        roll = self.random.random()
        which = self.random.random()
        if not self.faults or (self.only is not None and self.steps not in self.only):
            return "go"
        chances = self.chances
        action = "go"
        if roll < chances.kill:
            action = "kill before" if which < 0.5 else "kill after"
        elif roll < chances.kill + chances.freeze:
            self._freeze(proc, which)
            self.struck.append(self.steps)
        elif roll < chances.kill + chances.freeze + chances.unanswered * RARE.get(verb, 1.0):
            if verb == "commit":  # of a transaction that ends with its connection: none is on its way later
                action = "lost before" if which < 0.5 else "lost after"
            elif verb in CHANGES:
                action = "lost before" if which < 0.3 else "lost after" if which < 0.7 else "late"
            else:
                action = "lost before"
        if action != "go":
            self.struck.append(self.steps)
        return action

    def _freeze(self, proc: Proc, which: float) -> None:
        low, high = self.chances.freeze_seconds
        until = self.hand.at + low + (high - low) * which
        both = self.random.random() < self.chances.freeze_kind
        self.counts["freeze"] = self.counts.get("freeze", 0) + 1
        for other in self.procs:
            if other is proc or (both and other.kind == proc.kind):
                other.frozen = until

    def _arrive(self) -> None:
        due = [late for late in self.late if late.step <= self.steps]
        self.late = [late for late in self.late if late.step > self.steps]
        for late in due:
            self.running = late.proc
            with contextlib.suppress(Exists, NotFound):
                late.effect()

    def _beat(self) -> None:
        for proc in self.procs:
            alive = proc.thread is not None and not proc.dead and proc.frozen <= self.hand.at
            if alive and proc.beat is not None and self.hand.at - proc.beaten >= self.beat_seconds:
                proc.beaten = self.hand.at
                proc.beat()
