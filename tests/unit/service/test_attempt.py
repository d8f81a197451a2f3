"""What an attempt waits for while others hurry it: a child that writes on and on, a bucket that never answers."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.servers.databases import needs_the_extra

needs_the_extra()

from pipeline.clock import Clock  # noqa: E402
from pipeline.errors import TemporaryError  # noqa: E402
from pipeline.process.child import Child  # noqa: E402
from pipeline.process.host import stopped  # noqa: E402
from pipeline.service import queue  # noqa: E402
from pipeline.service.database.migrating import migrate_sqlite  # noqa: E402
from pipeline.service.database.sqlite import SqliteDatabase, connected, writer_of  # noqa: E402
from pipeline.service.ids import Kind, new_id  # noqa: E402
from pipeline.service.queue import Chunk, Snapshot  # noqa: E402
from pipeline.service.scaling import Bounds, Rules  # noqa: E402
from pipeline.service.words import WORKER, Claimed, Slot  # noqa: E402
from pipeline.service.work import attempt, pool, room  # noqa: E402
from pipeline.service.work.attempt import Hands  # noqa: E402
from pipeline.service.work.shipping import MANIFEST, Shipping  # noqa: E402
from pipeline.service.work.wanted import Unwanted, wanted  # noqa: E402
from tests.servers.demand import until  # noqa: E402
from tests.simulation.memory import Disk, MemoryStore  # noqa: E402

HELD = Claimed(new_id(Kind.TENANT, 0.0), new_id(Kind.TRAINING_JOB, 0.0), "train", 1, {}, False, 1e6)
ROOT, UNIT, LOCKS = Path(__file__).parents[3], "config/systemd/hathi-service-worker@.service", Path("/proc/locks")
HOLDS = """
import os, signal, sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("begin immediate")
os.kill(os.getpid(), signal.SIGSTOP)
"""
"""A process that is stopped within a transaction on a file."""
SECONDS_OF_A_LOOK = 0.7
ENOUGH = 50
"""Rows that a child writes at most, so that a test that is broken ends."""


def test_a_child_that_writes_faster_than_the_bucket_takes_keeps_no_snapshot_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(1, ENOUGH))
    told: list[Chunk | Snapshot] = []

    def write() -> None:
        with (tmp_path / "metrics.jsonl").open("a") as file:
            for step in (next(steps, None),):
                if step is not None:
                    file.write(json.dumps({"step": step, "time": 1.0, "values": {}}) + "\n")

    def gate(verb: str, key: str, effect: Any) -> Any:
        write()
        return effect()

    async def named(_: object, __: object, one: Chunk | Snapshot) -> bool:
        told.append(one)
        return True

    monkeypatch.setattr(queue, "ship", named)
    monkeypatch.setattr(queue, "keep", named)
    write()
    (tmp_path / "snapshots/5").mkdir(parents=True)
    (tmp_path / "snapshots/5" / MANIFEST).write_text("{}")
    shipping = Shipping(SimpleNamespace(), MemoryStore(Disk(lambda: 0.0), gate), HELD, tmp_path)  # type: ignore[arg-type]
    assert asyncio.run(shipping.ship())
    kinds = [one.kind if isinstance(one, Chunk) else one.iteration for one in told]
    assert kinds == ["metrics", 5], "one chunk of what was there, and then the snapshot"
    assert asyncio.run(shipping.ship())
    assert [(one.first, one.last) for one in told if isinstance(one, Chunk)] == [(1, 1), (2, 3)], "nothing is left out"


@pytest.mark.parametrize(
    ("stopping", "cancel", "seconds"),
    [(True, False, attempt.LAST_SNAPSHOT_SECONDS), (False, True, attempt.LAST_WORDS_SECONDS)],
    ids=["the worker's end", "a cancel"],
)
def test_a_bucket_that_never_answers_holds_up_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopping: bool, cancel: bool, seconds: float
) -> None:
    monkeypatch.setattr(attempt, "LOOK_SECONDS", 0.0)
    ticks = count()
    clock = Clock(monotonic=lambda: next(ticks) * SECONDS_OF_A_LOOK)
    hands = Hands(None, None, clock, tmp_path, lambda: stopping, lambda _: None)  # type: ignore[arg-type]
    lease = SimpleNamespace(held=HELD, lost=False, cancel=cancel)
    one = attempt._Attempt(hands, None, lease, tmp_path)  # type: ignore[arg-type]

    async def brought() -> bool:
        return await asyncio.wait_for(one._brought(asyncio.get_running_loop().create_future()), 60)

    assert not asyncio.run(brought()), "what was not shipped is not said to be there"
    assert seconds <= next(ticks) * SECONDS_OF_A_LOOK <= seconds + 4 * SECONDS_OF_A_LOOK


def test_what_nobody_wants_any_more_is_given_up_though_it_never_ends() -> None:
    async def tried() -> str:
        looks = count()
        with pytest.raises(Unwanted) as end:
            await wanted(asyncio.Event().wait(), lambda: "cancel" if next(looks) > 1 else "")
        return end.value.why

    assert asyncio.run(tried()) == "cancel"

    async def done() -> int:
        return await wanted(asyncio.sleep(0, 7), lambda: "")

    assert asyncio.run(done()) == 7


def test_a_thread_that_still_waits_makes_a_deleted_folder_not_anew(tmp_path: Path) -> None:
    folder = tmp_path / "tj_1-x"
    (folder / "out").mkdir(parents=True)
    began, over, refused = threading.Event(), threading.Event(), []

    def writes() -> None:
        with (folder / "out/first").open("w") as file:
            began.set()
            over.wait(60)
            file.write("what came late")
        try:
            (folder / "out/second").write_text("and more")
        except FileNotFoundError as error:
            refused.append(error)

    thread = threading.Thread(target=writes)
    thread.start()
    assert began.wait(60)
    room.deleted(folder)
    over.set()
    thread.join()
    assert refused
    assert not list(tmp_path.iterdir())


def test_whoever_waits_for_a_workers_end_waits_longer_than_it_takes_at_most() -> None:
    longest = attempt.PATIENCE["part"] + attempt.LAST_SNAPSHOT_SECONDS
    assert longest < attempt.PARTING_SECONDS < pool.DRAIN_SECONDS
    (said,) = re.findall(r"give it (\d+) s before it is killed", (ROOT / "docs/service.md").read_text())
    (unit,) = re.findall(r"^TimeoutStopSec=(\d+)$", (ROOT / UNIT).read_text(), re.M)
    assert pool.DRAIN_SECONDS < float(said) == float(unit)


def test_a_worker_that_is_stopped_is_killed_by_its_pool_and_another_one_begins(tmp_path: Path) -> None:
    """The pool's clock is the test's; its workers are processes that lock what a claim would."""
    now, said = [0.0], list[str]()
    path = tmp_path / "service.db"
    migrate_sqlite(path)
    clock = Clock(monotonic=lambda: now[0])
    begun: list[Child] = []

    def begin(slot: Slot, name: str) -> Child:
        begun.append(Child([sys.executable, "-c", HOLDS, str(path)]))
        return begun[-1]

    async def runs() -> None:
        database = SqliteDatabase(path, clock)
        rules = Rules({Slot.LIGHT: Bounds(1, 1), Slot.TRAIN: Bounds(0, 0)})
        one = pool.Pool(pool.Scaler(database, rules, clock), tmp_path, begin, said.append)
        await one._turn()
        while not stopped(begun[0].pid):
            await asyncio.sleep(0.01)
        assert writer_of(path, LOCKS.read_text()) == begun[0].pid
        await one._turn()
        now[0] += pool.STILL_SECONDS - 1
        await one._turn()
        assert begun[0].runs, "it may go on"
        now[0] += 1
        await one._turn()
        assert not begun[0].runs
        assert writer_of(path, LOCKS.read_text()) in (0, *(one.pid for one in begun[1:]))
        assert len(begun) == 2, "another one is begun at once"
        begun[1].kill()
        await database.close()

    asyncio.run(runs())
    assert said[1:3] == ["a worker for light work was stopped for 5 s: it is killed",
                         "a worker for light work was killed by SIGKILL"]  # fmt: skip


def test_who_opens_a_database_that_is_being_brought_in_order_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    migrate_sqlite(path)
    order = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    order.execute("pragma locking_mode = exclusive")
    order.execute("begin exclusive")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite3.connect(path, timeout=0.0).execute("pragma journal_mode = wal")
    ends = threading.Timer(0.2, order.close)
    ends.start()
    opened = connected(path)
    assert opened.execute("pragma busy_timeout").fetchone()[0] == 0
    opened.close()
    ends.join()


def test_who_finds_the_database_locked_for_long_is_told_by_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now = tmp_path / "service.db", count(0, 10.0)
    migrate_sqlite(path)
    holds = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)])

    async def asks() -> None:
        database = SqliteDatabase(path, Clock(monotonic=lambda: next(now)))
        async with database.transaction(WORKER):
            pass

    try:
        until(lambda: stopped(holds.pid), "it stands still")
        with pytest.raises(TemporaryError) as told:
            asyncio.run(asks())
    finally:
        holds.kill()
        holds.wait()
    assert told.value.detail == f"process {holds.pid} has written to it for 30 s; it is stopped (SIGSTOP)"
    assert told.value.hint == f"kill -9 {holds.pid}: what it was writing is undone"
