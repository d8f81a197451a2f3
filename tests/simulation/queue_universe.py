"""One schedule of the queue: three workers, a client and an operator over one database, under faults.

Workers are the product's whole loop: claim, lease, beats, child, shipping, ending.  Only the child is a toy.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from pipeline.clock import Clock
from pipeline.errors import PipelineError, TemporaryError
from pipeline.service import queue
from pipeline.service.database import sqlite
from pipeline.service.database.migrating import migrate_sqlite
from pipeline.service.database.statements import Database, Taken
from pipeline.service.ids import Kind, new_id
from pipeline.service.queue import Submission
from pipeline.service.words import Claimed, Slot, scope
from pipeline.service.work import attempt, lease, wanted, worker
from pipeline.service.work.attempt import Hands
from tests.simulation.laws import Violation
from tests.simulation.memory import Disk, MemoryStore
from tests.simulation.queue_database import Connections, GatedDatabase
from tests.simulation.queue_laws import QueueLaws
from tests.simulation.scheduler import Chances, Proc, Scheduler
from tests.simulation.toy_work import ToyChild
from tests.simulation.turn_loop import TurnLoop
from tests.simulation.world import HandClock

CHANCES = Chances(kill=0.004, freeze=0.003, unanswered=0.008, freeze_seconds=(5.0, 60.0))
WORKERS, TENANTS, WORK = 3, 3, 20
JUMPS = (-20.0, 5.0, 20.0, 40.0)
"""Seconds by which the database's clock may be moved."""
JUMP = 0.0004
PAUSE = 4.0
"""Seconds between two wishes of a client, at most, and of a worker between its last look and its last word."""
LATE = 0.6
"""Of last words: those before which the worker waits."""
LATE_BEAT = 0.06
"""Of beats: the same."""
LOST = 0.4
"""Of those: those before which it stands still for longer than a lease, so that another may have its work."""
REST_STEPS = 12_000

Word = Callable[..., Coroutine[Any, Any, Any]]


@functools.cache
def _migrated() -> bytes:
    """An empty database."""
    with tempfile.TemporaryDirectory() as folder:
        migrate_sqlite(Path(folder) / "queue.db")
        return (Path(folder) / "queue.db").read_bytes()


@dataclass
class QueueUniverse:
    """A seeded world.  only: of a shorter trace, the steps at which faults may strike."""

    seed: int
    only: frozenset[int] | None = None

    def __post_init__(self) -> None:
        self.hand = HandClock()
        self.scheduler = Scheduler(self.seed, self.hand, chances=replace(CHANCES), only=self.only)
        self.scheduler.step_seconds = 0.05
        self.random = self.scheduler.random
        self.scheduler.chances.freeze *= self.random.choice([1, 6])
        self.ahead = 0.0
        shared = Path("/dev/shm")
        self._folder = Path(tempfile.mkdtemp(prefix="hathi-queue-", dir=shared if shared.is_dir() else None))
        path = self._folder / "queue.db"
        path.write_bytes(_migrated())
        clock = Clock(now=lambda: self.hand.at + self.ahead, monotonic=lambda: self.hand.at)
        self.connections = Connections(path, clock, ends_idle=self.random.random() < 0.7)
        self.bucket = Disk(lambda: self.hand.at)
        self.tenants = [self._made(path, n) for n in range(TENANTS)]
        self.laws = QueueLaws(path, self.bucket)
        self.scheduler.after_step = self.laws.check
        self.said: list[str] = []
        self._children = 0
        self.cancels = self.random.choice([0.1, 0.8])
        self._ending: list[str] = []
        """Work whose worker is about to say something of it."""
        self._asked = 0
        self._asking: tuple[str, Submission] | None = None
        """What a client wants, and has no answer to; it outlives the client."""
        self._lives: dict[str, bool] = {}
        self._retired: set[str] = set()
        self._patches = contextlib.ExitStack()
        for target, name, value in (
            (attempt, "Child", self._child), (attempt, "os", SimpleNamespace(environ={})),
            (attempt, "LOOK_SECONDS", 1.0), (attempt, "SHIP_SECONDS", 2.0), (wanted, "LOOK_SECONDS", 1.0),
            (lease, "LOOK_SECONDS", 1.0), (worker, "POLL_SECONDS", 3.0),
            (queue, "finish", self._late(queue.finish, LATE)), (queue, "release", self._late(queue.release, LATE)),
            (queue, "beat", self._late(queue.beat, LATE_BEAT)),
            (sqlite, "_AGAIN", (0.2, 1.0)), (sqlite, "random", self.random),
        ):  # fmt: skip
            self._patches.enter_context(mock.patch.object(target, name, value))
        for _ in range(WORKERS):
            self.scheduler.add("worker", self._work)
        self.scheduler.add("client", self._client)
        self.scheduler.add("operator", self._operate)

    def _made(self, path: Path, number: int) -> str:
        """A tenant with a solver that was judged."""
        tenant, solver = (new_id(kind, self.hand.at, self.random.getrandbits) for kind in (Kind.TENANT, Kind.SOLVER))
        with contextlib.closing(sqlite.connected(path)) as bare:
            weight, running = self.random.choice([1, 1, 2]), self.random.choice([1, 2, 9])
            bare.execute("insert into bare_tenants values (?, ?, ?, ?, '{}', 0, 1)",
                         (tenant, f"t{number}", weight, running))  # fmt: skip
            bare.execute("insert into bare_solvers values (?, ?, 's', '', '', '{}', 0, 1)", (tenant, solver))
            bare.execute("insert into bare_judgements values (?, ?, null, '', '', '{}', '[]', '[]')", (tenant, solver))
        self._solvers = {**getattr(self, "_solvers", {}), tenant: solver}
        return tenant

    def close(self) -> None:
        """Nothing of this world is left."""
        self.scheduler.close()
        self._patches.close()
        self.laws.close()
        self.connections.close()
        shutil.rmtree(self._folder)

    # --- the processes ---

    def _in_loop(
        self, proc: Proc, work: Callable[[Hands], Coroutine[Any, Any, None]], stopping: Callable[[], bool]
    ) -> None:
        """Runs that as the whole life of a process."""
        life, name = proc.lives, proc.name
        self._lives[name] = True
        passing = self.scheduler.gate(proc, life)
        dead = lambda: proc.dead or proc.lives != life  # noqa: E731
        loop = TurnLoop(lambda: self.hand.at, lambda seconds: self.scheduler.sleep(proc, seconds), dead)

        def gate(verb: str, key: str, effect: Callable[[], object]) -> object:
            def mine() -> object:
                self.laws.acting = name
                return effect()

            return loop.away(lambda: passing(verb, key, mine)) if not dead() else passing(verb, key, mine)

        def committed() -> None:
            self.laws.committed(name, self.connections.clock.now())

        database = GatedDatabase(self.connections, gate, committed)
        skew = self.random.uniform(-40.0, 40.0)
        clock = Clock(now=lambda: self.hand.at + skew, monotonic=lambda: self.hand.at)
        hands = Hands(database, MemoryStore(self.bucket, gate), clock, self._folder / name, stopping, self.said.append)  # type: ignore[arg-type]
        try:
            loop.run(work(hands))
        except TemporaryError as error:
            self.said.append(f"{name}: {error}")
        except PipelineError as error:
            self.laws.first = self.laws.first or Violation(f"{name} ends, and a person has to mend it: {error}")
        finally:
            self._lives[name] = False
            database.leave()

    def _work(self, proc: Proc) -> None:
        """A worker; it is drained now and then, and begun again."""
        name, ends = proc.name, self.scheduler.steps + self.random.randint(200, 2000)

        def stopping() -> bool:
            return name in self._retired or (self.scheduler.faults and self.scheduler.steps > ends)

        self._in_loop(proc, lambda hands: worker.work(hands, name), stopping)

    def _child(self, command: list[str], environ: object) -> ToyChild:
        self._children += 1
        return ToyChild(command, lambda: self.hand.at, self.random, self._children)

    def _late(self, real: Word, often: float) -> Word:
        """A worker may stand still between its look at its work and its word of it, and a person cancels just then."""

        async def word(database: Database, held: Claimed, *more: Any) -> Any:
            if self.scheduler.faults and self.random.random() < often:
                self._ending.append(held.id)
                if self.random.random() < LOST:
                    mine = self.laws.claimed[held.id, held.epoch]
                    [proc] = [one for one in self.scheduler.procs if one.name == mine]
                    proc.frozen = self.hand.at + self.random.uniform(*CHANCES.freeze_seconds)
                try:
                    await asyncio.sleep(PAUSE * self.random.random())
                finally:
                    self._ending.remove(held.id)
            return await real(database, held, *more)

        return word

    def _client(self, proc: Proc) -> None:
        """Submits, cancels, changes priorities; asks again where no answer came."""
        self._in_loop(proc, lambda hands: self._wishes(hands), lambda: False)

    async def _wishes(self, hands: Hands) -> None:
        while True:
            try:
                if self._asking is None and self._asked < WORK and self.random.random() < 0.6:
                    self._asking = self._submission()
                if self._asking is not None:
                    tenant, one = self._asking
                    async with hands.database.transaction(scope(tenant)) as statements:
                        await queue.submit(statements, scope(tenant), one)
                    self._asking = None
                elif self.laws.rows and self.scheduler.faults:
                    work = self.random.choice(self._ending or self.laws.left() or sorted(self.laws.rows))
                    await self._change(hands, work)
            except Taken:  # the answer was lost
                self._asking = None
            except PipelineError as error:
                self.said.append(f"client: {error}")
            await asyncio.sleep(PAUSE * self.random.random())

    def _submission(self) -> tuple[str, Submission]:
        tenant = self.random.choice([self.tenants[0], *self.tenants])
        name = new_id(Kind.TRAINING_JOB, self.hand.at, self.random.getrandbits)
        slot, body = self.random.choice([Slot.TRAIN, Slot.TRAIN, Slot.LIGHT]), {"steps": self.random.randint(2, 9)}
        self._asked += 1
        mine = [one for one in self.laws.left() if self.laws.rows[one]["tenant_id"] == tenant]
        needs = self.random.sample(mine, min(len(mine), self.random.choice([0, 0, 0, 1, 2])))
        return tenant, Submission(
            name, "train", slot, body, self.random.choice([0, 0, 0, 9]), 1e6, self._solvers[tenant], needs=needs
        )

    async def _change(self, hands: Hands, work: str) -> None:
        tenant = str(self.laws.rows[work]["tenant_id"])
        cancels, priority = self.random.random() < self.cancels, self.random.randint(-3, 3)
        async with hands.database.transaction(scope(tenant)) as statements:
            if cancels:
                await queue.cancel(statements, scope(tenant), work)
            else:
                await statements.rows(
                    """update work set priority = $1, version = version + 1
                       where id = $2 and state in ('waiting', 'queued', 'running') returning id""",
                    priority, work,
                )  # fmt: skip

    def _operate(self, proc: Proc) -> None:
        """Retires idle workers, which are asked to end then; says which are dead; each as a pool does it."""
        self._in_loop(proc, self._pool, lambda: False)

    async def _pool(self, hands: Hands) -> None:
        while True:
            await asyncio.sleep(10.0 * self.random.random())
            try:
                for name, lives in sorted(self._lives.items()):
                    if name.startswith("worker") and not lives and self.random.random() < 0.5:
                        for one in worker.names_of(name).values():
                            await queue.orphan(hands.database, one)
                        del self._lives[name]
                busy = self.random.choice([name for name in sorted(self._lives) if name.startswith("worker")] or [""])
                if busy and self.scheduler.faults and await queue.retire(hands.database, f"{busy}-{Slot.TRAIN}"):
                    self._retired.add(busy)
            except PipelineError as error:
                self.said.append(f"operator: {error}")

    # --- a run ---

    def run(self, steps: int) -> None:
        """Faults for so many steps, then none until all work is over.  Raises Violation."""
        for _ in range(steps):
            if self.random.random() < JUMP and not self.connections.open:
                self.ahead += self.random.choice(JUMPS)
            self.scheduler.step()
        self.scheduler.faults = False
        for proc in self.scheduler.procs:
            proc.frozen = 0.0
        limit = self.scheduler.steps + REST_STEPS
        while self._asking is not None or self.laws.left():
            self.scheduler.step()
            if self.scheduler.steps > limit:
                rows = [{k: v for k, v in self.laws.rows[one].items() if v is not None} for one in self.laws.left()]
                raise Violation(f"does not come to rest: {json.dumps(rows)} {self.said[-6:]}")
        self.laws.check_at_rest()
