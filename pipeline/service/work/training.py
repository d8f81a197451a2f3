"""One attempt at a training: the child runs, and what it leaves goes to the bucket until it ends."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.clock import Clock
from pipeline.errors import PipelineError, SolverError, TemporaryError
from pipeline.process.child import Child, Ended, python_of
from pipeline.process.life import OUT_OF_MEMORY
from pipeline.service import blobs, eta, queue
from pipeline.service.database.statements import Database
from pipeline.service.specification.words import INPUTS
from pipeline.service.words import WORKER, Claimed, Ending, Reason, State
from pipeline.service.work import child as ours
from pipeline.service.work import preparing
from pipeline.service.work.lease import Lease
from pipeline.service.work.shipping import Shipping, restore
from pipeline.stores.store import Store

LOOK_SECONDS, SHIP_SECONDS = 0.2, 1.0
CANCEL_SECONDS, PART_SECONDS = 3.0, 25.0
"""So long a child has to end after it was asked to: by a person's cancel, and by a worker that ends."""
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "OMP_WAIT_POLICY")
_DETAIL = 2000
_FAILED = {
    2: Reason.BAD_SPEC, 3: Reason.DIVERGED, 71: Reason.OUT_OF_MEMORY, OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    ours.NO_ENGINE: Reason.ENGINE_MISSING, ours.NO_DATA: Reason.NO_DATA,
}  # fmt: skip
_LEFT = (75, 4)
"""Exit codes of a child that was asked to end."""


@dataclass(frozen=True)
class Hands:
    """What a worker works with.  scratch: a local folder.  stopping: whether the worker is to end.  say: to its log."""

    database: Database
    store: Store
    clock: Clock
    scratch: Path
    stopping: Callable[[], bool]
    say: Callable[[str], None]


async def attempt(hands: Hands, held: Claimed) -> None:
    """Trains until the end, a cancel, the worker's own end, or until the work is somebody else's."""
    if held.cancel:
        await queue.finish(hands.database, held, Ending(State.CANCELLED))
        return
    hands.scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{held.id}-", dir=hands.scratch))
    try:
        async with Lease(hands.database, held, hands.clock).beating() as lease:
            await _Attempt(hands, held, lease, folder).run()
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, True)


class _Attempt:
    def __init__(self, hands: Hands, held: Claimed, lease: Lease, folder: Path) -> None:
        self._hands, self._held, self._lease, self._folder = hands, held, lease, folder
        self._ends = hands.clock.monotonic() + held.seconds_left
        self._shipping = Shipping(hands.database, hands.store, held, folder / preparing.OUT)
        self._of: int | None = None
        self._pace = eta.Pace(0, hands.clock.monotonic())

    async def run(self) -> None:
        try:
            await self._fill()
        except TemporaryError as error:
            self._hands.say(f"{self._held.id}: {error}")
            await queue.release(self._hands.database, self._held)
            return
        except SolverError as error:
            await self._finish(Ending(State.FAILED, Reason.BAD_SPEC, str(error)[:_DETAIL]))
            return
        except (PipelineError, OSError) as error:
            await self._finish(Ending(State.FAILED, Reason.NO_DATA, str(error)[:_DETAIL]))
            return
        environ = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environ["HOME"] = str(self._folder)
        child = Child(python_of("pipeline.service.work.child", str(self._folder)), environ)
        try:
            ended, asked = await self._watched(child)
        finally:
            await asyncio.to_thread(child.kill)
        if not self._lease.lost:
            await self._told(ended, asked)

    async def _fill(self) -> None:
        """The folder: texts, inputs, and the snapshot to go on from.  Raises PipelineError, OSError."""
        held, hands = self._held, self._hands
        async with hands.database.reading(WORKER) as statements:
            solver = await statements.row(
                """select judgements.solver, judgements.net from judgements join work
                   on work.tenant_id = judgements.tenant_id and work.solver_id = judgements.solver_id
                   where work.tenant_id = $1 and work.id = $2""",
                held.tenant, held.id,
            )  # fmt: skip
            inputs = await statements.rows(
                """select inputs.name, datafiles.chunks from inputs join datafiles
                   on datafiles.tenant_id = inputs.tenant_id and datafiles.id = inputs.datafile_id
                   where inputs.tenant_id = $1 and inputs.work_id = $2""",
                held.tenant, held.id,
            )  # fmt: skip
        if solver is None:
            raise SolverError("an older Hathi took this solver unread", "", "post the solver again, and the job")
        (self._folder / preparing.SOLVER).write_text(solver["solver"])
        (self._folder / preparing.NET).write_text(solver["net"])
        (self._folder / preparing.WORK).write_text(json.dumps(held.body))
        (self._folder / INPUTS).mkdir()
        for one in inputs:
            path = self._folder / INPUTS / one["name"]
            await asyncio.to_thread(blobs.save, hands.store, json.loads(one["chunks"]), path)
        self._shipping.newest = await restore(hands.database, hands.store, held, self._folder / preparing.OUT)
        self._shipping.iteration = self._shipping.newest
        self._pace = eta.Pace(self._shipping.newest, hands.clock.monotonic())

    async def _watched(self, child: Child) -> tuple[Ended, str]:
        """How the child ended, and why it was asked to: `cancel`, `part`, `time`, or "" """
        clock, waiting = self._hands.clock, asyncio.ensure_future(asyncio.to_thread(child.wait))
        asked, killed_at, shipped_at = "", float("inf"), float("-inf")
        while not waiting.done():
            now = clock.monotonic()
            if self._lease.lost:
                killed_at = now
            elif not asked and (asked := self._why(now)):
                child.end()
                killed_at = now + (PART_SECONDS if asked == "part" else CANCEL_SECONDS)
            elif asked == "part" and self._lease.cancel:
                asked, killed_at = "cancel", min(killed_at, now + CANCEL_SECONDS)
            if now >= killed_at:
                os.kill(child.pid, signal.SIGKILL)
                killed_at = float("inf")
                await asyncio.wait([waiting])
                break
            if now - shipped_at >= SHIP_SECONDS:
                await self._ship()
                shipped_at = clock.monotonic()
            await asyncio.wait([waiting], timeout=LOOK_SECONDS)
        return waiting.result(), asked

    def _why(self, now: float) -> str:
        if self._lease.cancel:
            return "cancel"
        if now >= self._ends:
            return "time"
        return "part" if self._hands.stopping() else ""

    async def _ship(self) -> bool:
        """Whether all that is there is in the bucket, and named."""
        try:
            if not self._lease.lost and not await self._shipping.ship():
                self._lease.lost = True
        except TemporaryError as error:
            self._hands.say(f"{self._held.id}: {error}")
            return False
        self._lease.progress = self._progress()
        return True

    def _progress(self) -> dict[str, Any]:
        if self._of is None and (self._folder / preparing.PREPARED).exists():
            self._of = json.loads((self._folder / preparing.PREPARED).read_bytes())["max_iter"]
        self._pace = eta.moved(self._pace, self._shipping.iteration, self._hands.clock.monotonic())
        left = eta.seconds_left(self._pace, self._of) if self._of is not None else None
        return {"iteration": self._shipping.iteration, "of": self._of, "seconds_left": left}

    async def _told(self, ended: Ended, asked: str) -> None:
        """Tells what came of it; whatever the bucket has not taken is tried until the lease ends."""
        while not await self._ship() and not self._lease.lost:
            await asyncio.sleep(SHIP_SECONDS)
        if self._lease.lost:
            return
        text = ended.printed.decode("utf-8", "replace").replace(str(self._folder), ".").replace("\0", "")[-_DETAIL:]
        if asked == "cancel":
            await self._finish(Ending(State.CANCELLED))
        elif ended.code == 0:
            names = [one["name"] for one in self._shipping.files]
            await self._finish(
                Ending(State.SUCCEEDED, result={"iteration": self._shipping.newest, "files": names})
            )  # fmt: skip
        elif asked == "time":
            says = "it was not at its end after max_seconds; its snapshots are kept"
            await self._finish(Ending(State.FAILED, Reason.TIME_LIMIT, says))
        elif ended.code in _FAILED:
            await self._finish(Ending(State.FAILED, _FAILED[ended.code], text))
        elif asked == "part" or ended.code in _LEFT:
            await queue.release(self._hands.database, self._held)
        else:
            self._hands.say(f"{self._held.id}: its process {ended.how}")
            await queue.strike(self._hands.database, self._held, f"its process {ended.how}\n{text}")

    async def _finish(self, ending: Ending) -> None:
        await queue.beat(self._hands.database, self._held, self._lease.progress)
        state = await queue.finish(self._hands.database, self._held, ending)
        self._hands.say(f"{self._held.id}: {state or 'another worker has it now'}")
