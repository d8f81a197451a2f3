"""One schedule of a prune: clients upload, workers ship, an operator prunes; one database and bucket, under faults.

Uploads and prunes are the product's whole; an attempt puts and names as `shipping.py` does, with the queue's verbs.
A "day" of the prune is short, and longer than anybody is frozen: nobody names seven days later what it has put.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from pipeline.clock import Clock
from pipeline.errors import PipelineError
from pipeline.service import blobs, naming, pruning, queue
from pipeline.service.database import copying, sqlite
from pipeline.service.database.statements import Row
from pipeline.service.http import datafiles
from pipeline.service.ids import Kind, new_id
from pipeline.service.keys import ESTOP, UNNAMED, TenantKeys
from pipeline.service.problems import Refused
from pipeline.service.queue import Chunk, Snapshot, Submission
from pipeline.service.words import Actor, Claimed, Ending, Role, Slot, State, scope
from pipeline.service.work import lease
from pipeline.service.work.lease import Lease
from pipeline.times import DAY
from tests.simulation.laws import Violation
from tests.simulation.memory import Disk, MemoryStore
from tests.simulation.queue_database import Connections, GatedDatabase
from tests.simulation.queue_universe import _migrated
from tests.simulation.scheduler import Chances, Proc, Scheduler
from tests.simulation.turn_loop import TurnLoop
from tests.simulation.world import HandClock

AGE = 300.0
"""So long an object has to have been unnamed, seconds."""
CHANCES = Chances(kill=0.004, freeze=0.004, unanswered=0.008, freeze_seconds=(5.0, 60.0))
FILES, JOBS, PIECES, PAUSE = 6, 5, 3, 20.0
REST_STEPS = 20_000
FOREIGN = "s/te_06fdw0b06s0e8v8yyp9b5jsy40/u/df_x/0"
Work = Callable[[Any], Coroutine[Any, Any, None]]
Word = Callable[..., Coroutine[Any, Any, Any]]


class PruneLaws:
    """What rows name is in the bucket at each instant; a row that a client works on is not taken from it."""

    def __init__(self, path: Path, bucket: Disk) -> None:
        self._bare = sqlite3.connect(path, isolation_level=None)
        self._bare.row_factory = sqlite3.Row
        self.bucket = bucket
        bucket.watch = self._changed
        self.named: frozenset[str] = frozenset()
        self.there: frozenset[str] = frozenset()
        """Datafiles."""
        self.touched: dict[str, float] = {}
        """When the newest piece of an upload was put whose naming was answered."""
        self.deleted: set[str] = set()
        """Datafiles that a client has deleted, or meant to."""
        self.first: Violation | None = None
        self.seen: dict[str, int] = {}

    def close(self) -> None:
        self._bare.close()

    def check(self) -> None:
        if self.first is not None:
            raise self.first

    def committed(self) -> None:
        found: set[str] = set()
        for table, columns in naming.NAMING.items():
            only = naming.ONLY.get(table, "")
            for row in self._bare.execute(f"select {', '.join(columns)} from bare_{table}{only}"):
                found.update(one.key for one in naming.objects_of(table, dict(row)))
        self.named, before = frozenset(found), self.there
        self.there = frozenset(row["id"] for row in self._bare.execute("select id from bare_datafiles"))
        for gone in before - self.there - self.deleted:
            self._see("cut")
            if self.bucket.now() - self.touched.get(gone, float("-inf")) < AGE:
                self._broken(f"{gone} was taken from a client that had just gone on with it")
        if lost := self.named - self.bucket.files.keys():
            self._broken(f"rows name what is not in the bucket: {sorted(lost)}")

    def _changed(self, what: str, key: str, content: bytes) -> None:
        if what != "removed":
            return
        self._see("note removed" if key.startswith(UNNAMED) else "removed")
        if key in self.named:
            self._broken(f"{key} was deleted, and a row names it")
        if key in (FOREIGN, ESTOP):
            self._broken(f"{key} was deleted, which is nobody's to delete")

    def at_rest(self) -> None:
        left = [key for key in self.bucket.files if not key.startswith(UNNAMED) and key not in (FOREIGN, ESTOP)]
        if orphans := set(left) - self.named:
            raise Violation(f"nobody deletes {sorted(orphans)}")
        if len([key for key in self.bucket.files if key.startswith(UNNAMED)]) > 1:
            raise Violation("old notes stay")
        self.check()

    def _see(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1

    def _broken(self, says: str) -> None:
        self.first = self.first or Violation(says)


class _Kept(GatedDatabase):
    """Whoever closes it leaves it to its process."""

    async def close(self) -> None:
        self.leave()
        self._open.clear()


@dataclass
class PruneUniverse:
    """A seeded world.  only: of a shorter trace, the steps at which faults may strike."""

    seed: int
    only: frozenset[int] | None = None

    def __post_init__(self) -> None:
        self.hand = HandClock()
        self.scheduler = Scheduler(self.seed, self.hand, chances=CHANCES, only=self.only)
        self.random = self.scheduler.random
        shared = Path("/dev/shm")
        self._folder = Path(tempfile.mkdtemp(prefix="hathi-prune-", dir=shared if shared.is_dir() else None))
        path = self._folder / "prune.db"
        path.write_bytes(_migrated())
        self.connections = Connections(path, Clock(lambda: self.hand.at, lambda: self.hand.at), ends_idle=True)
        self.bucket = Disk(lambda: self.hand.at)
        self.laws = PruneLaws(path, self.bucket)
        self.scheduler.after_step = self.laws.check
        self.tenant = new_id(Kind.TENANT, self.hand.at, self.random.getrandbits)
        with contextlib.closing(sqlite.connected(path)) as bare:
            bare.execute("insert into bare_tenants values (?, 't', 1, 9, '{}', 0, 1)", (self.tenant,))
        for key in (FOREIGN, ESTOP):
            self.bucket.write(key, b"")
        self.said: list[str] = []
        self.files: list[str] = []
        self.cutting: list[str] = []
        """Uploads that a prune is about to end."""
        self.asked, self.pruned = 0, 0
        self._mine: _Kept | None = None
        self._patches = contextlib.ExitStack()
        for target, name, value in (
            (lease, "LOOK_SECONDS", 4.0), (sqlite, "_AGAIN", (0.2, 1.0)), (sqlite, "random", self.random),
            (pruning, "open_database", self._opened), (copying, "alone", _alone),
            (pruning, "_cut", self._late(pruning._cut)),
            (pruning, "random_nonce", lambda: f"{self.random.getrandbits(64):x}"),
            (datafiles, "new_id", lambda kind, now: new_id(kind, now, self.random.getrandbits)),
        ):  # fmt: skip
            self._patches.enter_context(mock.patch.object(target, name, value))
        for kind, work in (
            ("client", self._uploads), ("client", self._uploads), ("worker", self._works), ("worker", self._works),
            ("pruner", self._prunes),
        ):  # fmt: skip
            self.scheduler.add(kind, lambda proc, work=work: self._in_loop(proc, work))  # type: ignore[misc]

    def close(self) -> None:
        """Nothing of this world is left."""
        self.scheduler.close()
        self._patches.close()
        self.laws.close()
        self.connections.close()
        shutil.rmtree(self._folder)

    async def _opened(self, _: str) -> _Kept:
        assert self._mine is not None
        return self._mine

    def _in_loop(self, proc: Proc, work: Work) -> None:
        """Runs that as the whole life of a process."""
        life = proc.lives
        passing = self.scheduler.gate(proc, life)
        dead = lambda: proc.dead or proc.lives != life  # noqa: E731
        loop = TurnLoop(lambda: self.hand.at, lambda seconds: self.scheduler.sleep(proc, seconds), dead)

        def gate(verb: str, key: str, effect: Callable[[], object]) -> object:
            return loop.away(lambda: passing(verb, key, effect)) if not dead() else passing(verb, key, effect)

        database = _Kept(self.connections, gate, self.laws.committed)
        if proc.kind == "pruner":
            self._mine = database
        here = SimpleNamespace(
            database=database, store=MemoryStore(self.bucket, gate), name=proc.name,
            clock=Clock(lambda: self.hand.at, lambda: self.hand.at),
        )  # fmt: skip
        try:
            loop.run(work(here))
        except PipelineError as error:
            self.said.append(f"{proc.name}: {error}")
        finally:
            database.leave()

    def _late(self, real: Word) -> Word:
        """A prune may stand still between its look at an upload and the end of it, and a client goes on just then."""

        async def cut(database: Any, realm: Any, row: Row) -> Any:
            if self.scheduler.faults and self.random.random() < 0.5:
                self.cutting.append(row["id"])
                try:
                    await self._pause()
                finally:
                    self.cutting.remove(row["id"])
            return await real(database, realm, row)

        return cut

    async def _pause(self, most: float = PAUSE) -> None:
        await asyncio.sleep(most * self.random.random())

    # --- the processes ---

    async def _uploads(self, here: Any) -> None:
        """Announces files and jobs, uploads in pieces, breaks off, goes on where it broke or begins anew, deletes."""
        actor = Actor(self.tenant, "us", "", Role.ADMIN)
        while True:
            await self._pause()
            if not self.scheduler.faults:
                continue
            with contextlib.suppress(PipelineError, Refused):
                if self.asked < JOBS and self.random.random() < 0.4:
                    self.asked += 1
                    await self._submit(here)
                elif len(self.files) < FILES:
                    name = new_id(Kind.DATAFILE, self.hand.at, self.random.getrandbits)
                    self.files.append(name)
                    async with here.database.transaction(scope(self.tenant)) as statements:
                        await statements.row(
                            """insert into datafiles (tenant_id, id, name, size, created_at)
                               values ($1, $2, 'n', $3, instant()) returning id""",
                            self.tenant, name, PIECES,
                        )  # fmt: skip
                elif self.random.random() < 0.1:
                    await self._delete(here, self.random.choice(self.files))
                else:  # mostly one of the newest: others are given up
                    some = self.files[-2:] if self.random.random() < 0.9 else self.files
                    await self._upload(here, actor, self.random.choice(self.cutting or some))

    async def _submit(self, here: Any) -> None:
        name = new_id(Kind.TRAINING_JOB, self.hand.at, self.random.getrandbits)
        async with here.database.transaction(scope(self.tenant)) as statements:
            work = Submission(name, "train", Slot.TRAIN, {}, max_seconds=1e6)
            await queue.submit(statements, scope(self.tenant), work)

    async def _delete(self, here: Any, name: str) -> None:
        self.laws.deleted.add(name)
        self.files.remove(name)
        async with here.database.transaction(scope(self.tenant)) as statements:
            sql = "delete from datafiles where tenant_id = $1 and id = $2 returning id"
            await statements.rows(sql, self.tenant, name)

    async def _upload(self, here: Any, actor: Actor, name: str) -> None:
        async with here.database.reading(scope(self.tenant)) as statements:
            row = await statements.row("select received from datafiles where id = $1", name)
        if row is None:
            self.files = [one for one in self.files if one != name]
            return
        at = row["received"] if self.random.random() < 0.8 else 0
        upload = await datafiles._begun(here, actor, name, f"bytes {at}-{PIECES - 1}/{PIECES}" if at else None)
        for _ in range(PIECES - at):
            if self.random.random() < 0.3:
                return
            began = self.hand.at
            upload = await datafiles._store(here, actor, upload, b"x")
            self.laws.touched[name] = max(began, self.laws.touched.get(name, began))

    async def _works(self, here: Any) -> None:
        """A worker's attempts: objects first, then the row that names them; some take longer than a prune's days."""
        name = f"{here.name}-train"
        await queue.enlist(here.database, name, "here", Slot.TRAIN)
        while True:
            await self._pause(5.0)
            held = await queue.claim(here.database, name)
            if held is not None:
                async with Lease(here.database, held, here.clock).beating():
                    await self._attempt(here, held)

    async def _attempt(self, here: Any, held: Claimed) -> None:
        keys, store, database = TenantKeys(held.tenant), here.store, here.database
        for at in range(1, 1 + self.random.randint(1, 3)):
            files = []
            for name in ("a", "b"):
                files.append({"name": name, **await self._put(store, keys.snapshot(held.id, held.epoch, at, name))})
                await self._pause(2.5 * AGE if self.scheduler.faults and self.random.random() < 0.15 else 4.0)
            if not await queue.keep(database, held, Snapshot(at, files)):
                return
            key = keys.chunk(held.id, held.epoch, "log", at)
            await self._put(store, key)
            if not await queue.ship(database, held, Chunk("log", at, at, 1, key)):
                return
        said = await self._put(store, keys.snapshot(held.id, held.epoch, at, "evaluation.json"))
        await self._pause(4.0)
        result = {"evaluation": {"name": "evaluation.json", **said}}
        await queue.finish(database, held, Ending(State.SUCCEEDED, result=result))

    async def _put(self, store: Any, key: str) -> dict[str, Any]:
        await blobs.put(store, key, b"x")
        return blobs.described(key, b"x")

    async def _prunes(self, here: Any) -> None:
        """Again and again, also while nobody has cleaned up after the last one."""
        while True:
            await self._pause(AGE)
            await pruning.prune("", here.store, days=AGE / DAY, dry=False)
            self.pruned += 1

    # --- a run ---

    def run(self, steps: int) -> None:
        """Faults for so many steps, then none until nothing is left to prune.  Raises Violation."""
        for _ in range(steps):
            self.scheduler.step()
        self.scheduler.faults = False
        for proc in self.scheduler.procs:
            proc.frozen = 0.0
        limit = self.scheduler.steps + REST_STEPS
        over = last = float("inf")  # an upload is cut after AGE, the next prune notes its pieces, they go after AGE
        while self.pruned <= last:  # it ends with a prune, which has deleted its older note
            self.scheduler.step()
            if over == float("inf") and not self._open():
                over = self.hand.at
            if last == float("inf") and self.hand.at > over + 6 * AGE:
                last = self.pruned
            if self.scheduler.steps > limit:
                raise Violation(f"does not come to rest: {self.said[-4:]}")
        self.laws.at_rest()

    def _open(self) -> bool:
        sql = "select 1 from bare_work where state in ('queued', 'running') limit 1"
        return self.laws._bare.execute(sql).fetchone() is not None


@contextlib.asynccontextmanager
async def _alone(_: str) -> AsyncIterator[None]:
    yield
