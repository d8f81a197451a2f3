"""One schedule: ships, boxes, delivers, prune, an operator and a source that changes, under faults.

What must never be seen is checked at each change (laws.py); what must be reached, at rest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pipeline.clock import Clock, Process
from pipeline.codec.codecs import Forms
from pipeline.errors import PipelineError
from pipeline.extraction.window import Computed
from pipeline.ledger.layout import Keys, ShipmentName, seconds_of
from pipeline.ledger.manifest import End, Plan
from pipeline.ledger.protocol import Context
from pipeline.operations.prune import Pruner
from pipeline.records import ImageRef
from pipeline.settings import FeatureSet, Settings
from pipeline.stages import derived_shipments, operator_requests
from pipeline.stages.following import Asked
from pipeline.stages.loop import LakeStages
from tests.simulation.laws import Laws, Violation
from tests.simulation.light import LIGHT
from tests.simulation.memory import Disk, MemoryStore
from tests.simulation.scheduler import Proc, Scheduler
from tests.simulation.world import DIM, HandClock, StubServed, settings_of

T = TypeVar("T")
KEYS = Keys("shop")
LINES = ("ok",) * 8 + ("gone", "down", "down", "later", "later", "nan", "junk", "bang")
FINGERPRINTS = {"demo": "ab" * 32, "other": "cd" * 32}
UPGRADED = "ef" * 32
DAY = 86400.0
BODIES = ("plan", "end", "out", "done")


def simulated_settings() -> Settings:
    """Small limits, so that rare paths are common."""
    return settings_of(
        sets={
            "demo": FeatureSet(net="n", blob="b", root="features", reuse=False),
            "other": FeatureSet(net="n", blob="b", root="features2", reuse=False),
        },
        ship={"batch_refs": 3, "batches_per_shipment": 2, "gone_seconds": 3600.0, "open_shipments": 4},
        compute={"strikes": 1, "lost": 2, "strikes_alone": 2, "lost_alone": 3},
        prune={"keep_days": 0.05, "ledger_days": 1.0, "orphan_days": 0.1},
    )


class Flaky(StubServed):
    """A net that now and then fails in its child as well, so that batches are held."""

    chance: Callable[[], float] = lambda: 1.0

    def alone(self, task: T, refs: Sequence[ImageRef]) -> Computed[T]:
        if any("/bang" in ref.url for ref in refs) and self.chance() < 0.5:
            return Computed(task, (), np.empty((0, DIM), np.float32), (), 0, 0.0, "the child dies")
        return super().alone(task, refs)


@dataclass
class Universe:
    """A seeded world."""

    seed: int
    forms: Forms = LIGHT
    settings: Settings = field(default_factory=simulated_settings)
    only: frozenset[int] | None = None
    """Of a shorter trace: the steps at which faults may strike."""
    spoils: float = 0.7
    """How likely it is that a body cannot be read for some time."""

    def __post_init__(self) -> None:
        self.hand = HandClock()
        self.bucket = Disk(lambda: self.hand.at)
        self.lake = Disk(lambda: self.hand.at)
        self.lake.folders.add("refs")
        self.scheduler = Scheduler(self.seed, self.hand, only=self.only)
        self.random = self.scheduler.random
        self.laws = self._laws()
        self.scheduler.after_step = self.laws.check
        self.laws.learns = self.forms is LIGHT
        self.upgraded = False
        self.asked: dict[str, int] = {}
        self.said: list[str] = []
        self._nonces = self._urls = 0
        self._contexts: list[Context] = []
        self._whole: dict[str, tuple[bytes, float, int]] = {}
        self._waits: dict[tuple[str, str], bool] = {}
        """Answers of _waits_for; they hold until something is committed."""
        self._waits_of = 0
        self._spill = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").exists() else None)
        for kind, stages in (("ship", ("ship",)), ("box", ("compute", "aggregate")), ("deliver", ("deliver",))):
            for _ in range(2):
                self._add(kind, stages)
        self.scheduler.add("prune", self._prune)
        self.scheduler.add("operator", self._operate)

    def _laws(self) -> Laws:
        return Laws(self.bucket, self.lake, self.settings, lambda: self.scheduler.running)

    def _add(self, kind: str, stages: tuple[str, ...]) -> None:
        self.scheduler.add(kind, lambda proc: self._daemon(proc, stages))

    def close(self) -> None:
        """Nothing of this world is left."""
        self.scheduler.close()
        self._spill.cleanup()

    # --- the processes ---

    def _daemon(self, proc: Proc, stages: tuple[str, ...]) -> None:
        """A daemon, or a box that cron starts again and again; ends by ESTOP now and then."""
        ends = self.scheduler.steps + self.random.randint(100, 2500)
        turns = self._turns(proc, lambda: self.scheduler.faults and self.scheduler.steps > ends)
        while True:
            for stage in stages:
                try:
                    if turns.take(stage).stopped:
                        self.scheduler.sleep(proc, 60.0 + 60.0 * self.random.random())
                        return
                except PipelineError as error:
                    self.said.append(f"{proc.name} {stage}: {error}")
            self.scheduler.sleep(proc, 20.0 + 40.0 * self.random.random())

    def _prune(self, proc: Proc) -> None:
        turns = self._turns(proc, lambda: False)
        while True:
            self.scheduler.sleep(proc, 300.0 + 3000.0 * self.random.random())
            try:
                Pruner(turns.context, turns.look).prune()
            except PipelineError as error:
                self.said.append(f"{proc.name}: {error}")

    def _operate(self, proc: Proc) -> None:
        """Releases, drops, ships again, back-fills."""
        context = self._context(proc, lambda: False)
        while True:
            self.scheduler.sleep(proc, 100.0 + 1500.0 * self.random.random())
            try:
                for one in list(operator_requests.held(context)):
                    if not one.answered:
                        operator_requests.answer(
                            context, one.name, one.batch, self.random.choice(["release", "release", "drop"])
                        )
                if self.scheduler.faults and self.random.random() < 0.3:
                    found = operator_requests.newest(context, "", list(self.settings.sets))
                    if found:
                        name, plan = self.random.choice(found)
                        operator_requests.again(context, name, plan, backfill=self.random.random() < 0.5)
                if self.scheduler.faults and self.random.random() < 0.3:
                    self._close(context)
            except PipelineError as error:
                self.said.append(f"{proc.name}: {error}")

    def _close(self, context: Context) -> None:
        """A person takes an open shipment for one that cannot go on."""
        hinted = sorted({key.rpartition("/")[2] for key in self.bucket.under(KEYS.open_hints)})
        if hinted:
            operator_requests.close(context, ShipmentName.parse(self.random.choice(hinted)), "a test")

    def _turns(self, proc: Proc, stopping: Callable[[], bool]) -> LakeStages:
        context = self._context(proc, stopping)
        mute = MemoryStore(self.bucket)
        proc.beat = lambda: mute.put(KEYS.alive_hint(proc.name), b"")
        upgraded = self.upgraded and proc.number == 0

        def serve(asked: Asked, feature_set: FeatureSet) -> StubServed:
            return self._serve(context.process.clock, self._fingerprint(asked, feature_set, upgraded))

        return LakeStages(context, serve, strict=False)

    def _serve(self, clock: Clock, fingerprint: str) -> StubServed:
        served = Flaky(fingerprint, clock, self.asked, max_batches=3)
        served.chance = self.random.random
        return served

    def _fingerprint(self, asked: Asked, feature_set: FeatureSet, upgraded: bool) -> str:
        return UPGRADED if upgraded and asked.set == "demo" else FINGERPRINTS[asked.set]

    def _context(self, proc: Proc, stopping: Callable[[], bool]) -> Context:
        passing = self.scheduler.gate(proc, proc.lives)

        def gate(verb: str, key: str, effect: Callable[[], object]) -> object:
            if verb == "get" and key in self.laws.spoilt:
                self.laws.spoilt[key].add(proc.name)
            return passing(verb, key, effect)

        clock = Clock(
            now=lambda: self.hand.at, monotonic=lambda: self.hand.at, sleep=lambda s: self.scheduler.sleep(proc, s)
        )
        context = Context(
            lake_name="shop",
            bucket=MemoryStore(self.bucket, gate),  # type: ignore[arg-type]
            lake=MemoryStore(self.lake, gate) if proc.kind != "box" else None,  # type: ignore[arg-type]
            settings=self.settings,
            process=Process(name=proc.name, clock=clock, nonce=self._nonce, gone=lambda name: False),
            spill=Path(self._spill.name),
            stopping=stopping,
            say=self.said.append,
            once=lambda key, text: self.said.append(text),
            forms=self.forms,
        )
        self._contexts.append(context)
        return context

    def _nonce(self) -> str:
        self._nonces += 1
        return f"{self._nonces:016x}"

    # --- the source ---

    def change_source(self) -> None:
        """A partner's file appears, changes or disappears."""
        name = f"refs/{self.random.choice('abc')}.csv"
        if self.random.random() < 0.15:
            self.lake.files.pop(name, None)
            return
        lines = ["partner_id,external_id,url"] if self.forms is not LIGHT else []
        for _ in range(self.random.randint(0, 14)):
            self._urls += 1
            kind = self.random.choice(LINES)
            rest = f"{self.random.randint(1, 5)}-{self._urls}" if kind == "later" else str(self._urls)
            lines.append(f"{self.random.randint(7, 8)},{self.random.choice('pqrstuvw')},http://shop/{kind}-{rest}")
        if self.forms is LIGHT and self.random.random() < 0.2:
            lines.insert(self.random.randint(0, len(lines)), "!")
        if self.forms is LIGHT and self.random.random() < 0.1:
            lines += ["!!", "7,lost,http://shop/ok-0"]
        self.lake.write(name, ("\n".join(lines) + "\n" if lines else "").encode())

    # --- damage ---

    def spoil(self) -> None:
        """A body of one shipment cannot be read from now on, until a person puts it back."""
        bodies = [key for key in self.bucket.files if key.startswith(KEYS.commits) and key.split("/")[-1] in BODIES]
        if not bodies or self._whole:
            return
        hinted = {key.rpartition("/")[2] for key in self.bucket.under(KEYS.open_hints)}
        key = self.random.choice([key for key in bodies if key.split("/")[2] in hinted] or bodies)
        _, modified, serial = self._whole[key] = self.bucket.files[key]
        self.bucket.files[key] = (self.random.choice((b"{torn", b'{"format": 99}')), modified, serial)
        self.laws.spoilt[key] = set()
        self.laws.attempts[key] = self.laws.attempts_at_out(ShipmentName.parse(key.split("/")[2]))
        for context in self._contexts:
            context.bodies.pop(key, None)

    def mend(self) -> None:
        """It stands there again as it was."""
        for key, whole in self._whole.items():
            self.bucket.files[key] = whole
        self._whole.clear()
        self.laws.spoilt.clear()

    # --- a run ---

    def run(self, steps: int) -> None:
        """Faults for so many steps, then none until nothing is due any more.  Raises Violation."""
        changes = {self.random.randint(0, steps * 2 // 3) for _ in range(6)} | {0}
        upgrade = self.random.randint(0, steps)
        spoils = self.random.randint(steps // 3, steps) if self.random.random() < self.spoils else -1
        for number in range(steps):
            if number == spoils:
                self.spoil()
            if number in changes:
                self.change_source()
            self.upgraded = self.upgraded or number == upgrade
            self.scheduler.step()
        self.scheduler.faults = False
        for proc in self.scheduler.procs:
            proc.frozen = 0.0
        if self._whole:
            self._come_to_rest(steps)  # what cannot be read is in nobody's way
            self.mend()
            for name in self.laws.names():  # as the daily pass does
                if not self.laws.closed(name):
                    due = self.laws.body(Plan, KEYS.plan(name)).due
                    self.bucket.write(KEYS.open_hint(due, name), b"")
        self._come_to_rest(steps)
        self.laws.check_at_rest()

    def _come_to_rest(self, steps: int) -> None:
        quiet = 0
        limit = self.scheduler.steps + 6 * steps + 12_000
        while quiet < 80:
            self.scheduler.step()
            hints = self._open_hints()
            held = any(not self._is_spoilt(key.rpartition(".")[0]) for key in self.bucket.under(KEYS.held_hints))
            if not hints and not self.scheduler.late and not held and (quiet or self.laws.covered()):
                quiet += 1
                continue
            quiet = 0
            if self.scheduler.steps > limit:
                raise Violation(f"does not come to rest: {hints[:4]} held {held} {self.said[-4:]}")
            self._skip_to_next_due(hints, held)

    def _open_hints(self) -> list[str]:
        """Hints of shipments that exist; one whose plan was never written is prune's."""
        hints = [key for key in self.bucket.under(KEYS.open_hints) if not self._is_spoilt(key)]
        return [key for key in hints if f"{KEYS.commits}{key.rpartition('/')[2]}/plan" in self.bucket.files]

    def _is_spoilt(self, hint: str) -> bool:
        """Whether a person has to mend a body first: of this shipment, of the one whose refs it has yet to copy, or of
        the child that it has yet to fill."""
        name = hint.rpartition("/")[2]
        return any(name == spoilt or self._waits_for(name, spoilt) for spoilt in map(_shipment_of, self._whole))

    def _waits_for(self, name: str, spoilt: str) -> bool:
        if self._waits_of != len(self.laws.history):
            self._waits_of = len(self.laws.history)
            self._waits.clear()
        if (name, spoilt) not in self._waits:
            self._waits[name, spoilt] = self._would_wait_for(name, spoilt)
        return self._waits[name, spoilt]

    def _would_wait_for(self, name: str, spoilt: str) -> bool:
        plan, end = self._written(Plan, name), self._written(End, name)
        if plan is not None and plan.parent == spoilt and plan.kind in derived_shipments.KINDS:
            return end is None or end.next is not None
        other = self._written(Plan, spoilt)
        fills = other is not None and other.parent == name and other.kind == "retry"
        return fills and self._written(End, spoilt) is None

    def _written(self, kind: type[Any], name: str) -> Any:
        """What was ever committed of a shipment."""
        return self.laws.body(kind, f"{KEYS.commits}{name}/{kind.__name__.lower()}")

    def _skip_to_next_due(self, hints: list[str], held: bool) -> None:
        """Nobody waits for days in real time."""
        dues = [hint.removeprefix(KEYS.open_hints).partition("/")[0] for hint in hints]
        first = min(dues, default="")
        if not held and first > "0001":
            self.hand.at = max(self.hand.at, seconds_of(first))


def _shipment_of(key: str) -> str:
    return key.split("/")[2]


def shorter(seed: int, steps: int, make: Callable[[int, frozenset[int] | None], Any]) -> tuple[list[int], str]:
    """The fewest fault steps found that still break the seed's schedule, and how it breaks."""

    def broken(only: frozenset[int] | None) -> tuple[str, list[int]]:
        universe = make(seed, only)
        try:
            universe.run(steps)
            return "", []
        except Violation as violation:
            return str(violation), list(universe.scheduler.struck)
        finally:
            universe.close()

    words, struck = broken(None)
    size = max(1, len(struck) // 2)
    while words and size:
        for start in range(0, len(struck), size):
            fewer = struck[:start] + struck[start + size :]
            again, _ = broken(frozenset(fewer))
            if again:
                words, struck = again, fewer
                break
        else:
            size //= 2
    return struck, words
