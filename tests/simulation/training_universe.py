"""One schedule of trainings: two boxes, prune and an operator, under faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.clock import Clock, Process
from pipeline.errors import PipelineError
from pipeline.ledger.layout import JobName, Keys
from pipeline.ledger.protocol import Context
from pipeline.ledger.trainings import JobSpec
from pipeline.operations.prune.deletion import perform as forget
from pipeline.operations.prune.trainings import plan_trainings
from pipeline.settings import Settings
from pipeline.stores.store import Listing
from pipeline.training import jobs
from pipeline.training.turn import turn
from tests.simulation.laws import Violation
from tests.simulation.memory import Disk, MemoryStore
from tests.simulation.scheduler import Chances, Proc, Scheduler
from tests.simulation.toy_training import ToyTrainer
from tests.simulation.training_laws import TrainingLaws
from tests.simulation.world import HandClock, settings_of

KEYS = Keys("shop")
CHANCES = Chances(kill=0.02, freeze=0.015, unanswered=0.03, freeze_seconds=(15.0, 120.0))
BEAT_SECONDS = 15.0
LOST = 4
"""Attempts without a snapshot after which a training fails."""


def simulated_settings() -> Settings:
    """Small limits, so that rare paths are common."""
    return settings_of(
        compute={"strikes_alone": 3, "lost_alone": LOST},
        daemon={"beat_seconds": BEAT_SECONDS, "alive_seconds": 3 * BEAT_SECONDS},
        prune={"orphan_days": 0.01},
    )


@dataclass
class TrainingUniverse:
    """A seeded world of trainings."""

    seed: int
    settings: Settings = field(default_factory=simulated_settings)
    only: frozenset[int] | None = None
    """Of a shorter trace: the steps at which faults may strike."""

    def __post_init__(self) -> None:
        self.hand = HandClock()
        self.bucket = Disk(lambda: self.hand.at)
        self.scheduler = Scheduler(self.seed, self.hand, chances=replace(CHANCES), only=self.only)
        self.scheduler.beat_seconds = BEAT_SECONDS
        self.random = self.scheduler.random
        self.cpus = ("one", "other") if self.random.random() < 0.4 else ("one",)
        self.laws = TrainingLaws(self.bucket, self.cpus)
        self.scheduler.after_step = self.laws.check
        self.specs = [self._spec(number) for number in range(2)]
        self.stops = self.random.random() < 0.3
        self.said: list[str] = []
        self._nonces = 0
        self._contexts: list[Context] = []
        for _ in range(2):
            self.scheduler.add("box", self._box)
        self.scheduler.add("prune", self._prune)
        self.scheduler.add("operator", self._operate)

    def _spec(self, number: int) -> JobSpec:
        every, last = self.random.randint(3, 6), self.random.randint(12, 24)
        return JobSpec(model=f"toy{number}", solver="", max_iter=last, every=every, seed=self.seed)

    def close(self) -> None:
        """Nothing of this world is left."""
        self.scheduler.close()

    # --- the processes ---

    def _box(self, proc: Proc) -> None:
        """A box that trains what is open; it ends by ESTOP or SIGTERM now and then, and is started again."""
        ends = self.scheduler.steps + self.random.randint(20, 400)
        context = self._context(proc, lambda: self.scheduler.faults and self.scheduler.steps > ends)
        mute = MemoryStore(self.bucket)
        proc.beat = lambda: mute.put(KEYS.alive_hint(proc.name), b"")
        cpu = self.cpus[proc.number % len(self.cpus)]

        def trainer(spec: JobSpec) -> ToyTrainer:
            name = spec.name()

            def step() -> None:
                self.laws.steps(proc.name, name, self.hand.at)
                self.scheduler.sleep(proc, 2.0 + 4.0 * self.random.random())

            return ToyTrainer(spec, cpu, lambda: self.hand.at, step)

        while True:
            try:
                turn(context, trainer, self._failed)
            except PipelineError as error:
                self.said.append(f"{proc.name}: {error}")
                if context.stopping():
                    self.scheduler.sleep(proc, 60.0 * self.random.random())
                    return
            self.scheduler.sleep(proc, 5.0 + 25.0 * self.random.random())

    def _failed(self, name: JobName, error: PipelineError) -> None:
        self.said.append(f"{name}: {error}")

    def _prune(self, proc: Proc) -> None:
        context = self._context(proc, lambda: False)
        while True:
            self.scheduler.sleep(proc, 10.0 + 100.0 * self.random.random())
            try:
                for one in plan_trainings(context, self.hand.at):
                    forget(context, one)
            except PipelineError as error:
                self.said.append(f"{proc.name}: {error}")

    def _operate(self, proc: Proc) -> None:
        """Begins trainings, and in some worlds ends one."""
        context = self._context(proc, lambda: False)
        while True:
            for spec in self.specs:
                try:
                    jobs.submit(context, spec)
                    if self.stops and self.scheduler.faults and self.random.random() < 0.1:
                        jobs.stop(context, spec.name(), "ann")
                except PipelineError as error:
                    self.said.append(f"{proc.name}: {error}")
            self.scheduler.sleep(proc, 10.0 + 60.0 * self.random.random())

    def _context(self, proc: Proc, stopping: Callable[[], bool]) -> Context:
        passing = self.scheduler.gate(proc, proc.lives)

        def gate(verb: str, key: str, effect: Callable[[], object]) -> object:
            self.laws.asks(proc.name, verb, key)
            found = passing(verb, key, effect)
            if isinstance(found, Listing):
                entries = list(found)
                self.laws.told(proc.name, [entry.key for entry in entries])
                return Listing(found.now, iter(entries))
            return found

        clock = Clock(
            now=lambda: self.hand.at, monotonic=lambda: self.hand.at, sleep=lambda s: self.scheduler.sleep(proc, s)
        )
        return Context(
            lake_name="shop",
            bucket=MemoryStore(self.bucket, gate),  # type: ignore[arg-type]
            lake=None,
            settings=self.settings,
            process=Process(name=proc.name, clock=clock, nonce=self._nonce, gone=lambda name: False),
            spill=Path("/nowhere"),
            stopping=stopping,
            say=self.said.append,
            once=lambda key, text: self.said.append(text),
        )

    def _nonce(self) -> str:
        self._nonces += 1
        return f"{self._nonces:016x}"

    # --- a run ---

    def run(self, steps: int) -> None:
        """Faults for so many steps, then none until every training is at its end.  Raises Violation."""
        for _ in range(steps):
            if self.random.random() < 0.002:  # hints may be lost at any time
                for key in list(self.bucket.under(KEYS.train_hints)):
                    self.bucket.remove(key)
            self.scheduler.step()
        self.scheduler.faults = False
        for proc in self.scheduler.procs:
            proc.frozen = 0.0
        self._come_to_rest()
        self.laws.check_at_rest(self._may_fail)

    def _come_to_rest(self) -> None:
        quiet, limit = 0, self.scheduler.steps + 6000
        while quiet < 40:
            self.scheduler.step()
            names = self.laws.names()
            open_ones = [str(name) for name in names if not self.laws.closed(name)]
            hints = list(self.bucket.under(KEYS.train_hints))
            if len(names) == len(self.specs) and not open_ones and not hints and not self.scheduler.late:
                quiet += 1
                continue
            quiet = 0 if open_ones or self.scheduler.late or len(names) < len(self.specs) else quiet
            if self.scheduler.steps > limit:
                raise Violation(f"does not come to rest: {open_ones or hints} {self.said[-4:]}")

    def _may_fail(self, name: JobName) -> bool:
        """Whether so many attempts brought no snapshot."""
        keys = KEYS.job(name)
        links = self.laws.chain(keys)
        last = links[-1].attempt if links else 0
        made = {key.removeprefix(f"{keys.top}t/") for key in self.laws.history if key.startswith(f"{keys.top}t/")}
        lost = [number for number in made if f"{number}.x" not in made and not number.endswith(".x")]
        return len([number for number in lost if int(number) > last]) >= LOST
