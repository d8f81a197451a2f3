"""The workers of one host as processes: begun and ended as the queue wants it, and begun anew when they die.

A worker is ended by `queue.retire`, which the database refuses while it holds work: one that is busy is never chosen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.amounts import counted
from pipeline.clock import Clock
from pipeline.errors import PipelineError, Stopped
from pipeline.process.child import Child
from pipeline.process.host import host_name, stopped
from pipeline.service import backlog, halting, queue, scaling
from pipeline.service.database.statements import Database
from pipeline.service.ids import Kind, new_id
from pipeline.service.scaling import Rules, Steady, Wanted
from pipeline.service.words import Slot
from pipeline.service.work import missing
from pipeline.service.work.attempt import PARTING_SECONDS
from pipeline.service.work.worker import names_of

LOOK_SECONDS, COUNT_SECONDS = 0.1, 0.5
"""Between two looks at the processes, and at the queue."""
PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before a worker of a kind is begun after one died: longer, the more of them die soon after they began."""
STILL_SECONDS = 5.0
"""So long a worker may be stopped (SIGSTOP): within a transaction on SQLite it holds up everybody."""
HALTED_SECONDS = 2 * halting.LOOK_SECONDS
"""Before a worker of a kind is begun after one saw ESTOP."""
LASTS_SECONDS = 30.0
"""A worker that lived so long did not die soon."""
DRAIN_SECONDS = PARTING_SECONDS + 3.0
"""So long workers have to end: longer than they take at most."""


@dataclass
class Scaler:
    """What the queue wants, over time."""

    database: Database
    rules: Rules
    clock: Clock
    took: backlog.Took = field(default_factory=backlog.Took)
    _steady: dict[Slot, Steady] = field(default_factory=dict)

    async def look(self) -> dict[Slot, Wanted]:
        """As things are now.  Raises PipelineError."""
        loads, now = await backlog.read(self.database, self.took), self.clock.monotonic()
        for slot, one in scaling.wanted_now(loads, self.rules).items():
            before = self._steady.get(slot, Steady())
            self._steady[slot] = scaling.steadied(before, now, one.desired, self.rules.idle)
        return {slot: Wanted(load, self._steady[slot].desired) for slot, load in loads.items()}


@dataclass(eq=False)
class _Worker:
    name: str
    slot: Slot
    child: Child
    began: float
    parting: bool = False
    """It was retired, or asked to end."""
    still: float = float("inf")
    """Since when it is stopped."""


class Pool:
    """state: the state folder.  begin: starts a worker's process.  told: what the queue wants, at each look at it."""

    def __init__(
        self, scaler: Scaler, state: Path, begin: Callable[[Slot, str], Child], say: Callable[[str], None],
        told: Callable[[Mapping[Slot, Wanted]], None] = lambda found: None,
    ) -> None:  # fmt: skip
        self._scaler, self._state, self._begin, self._say, self._told = scaler, state, begin, say, told
        self._clock, self._database = scaler.clock, scaler.database
        self._workers: list[_Worker] = []
        self._dead: list[str] = []
        self._deaths = dict.fromkeys(Slot, 0)
        self._pauses = dict.fromkeys(Slot, float("-inf"))
        self._counted = float("-inf")
        self._trouble = ""

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Until it is asked to end; then each worker parts with what it holds."""
        try:
            while not stopping():
                await self._turn()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._part()

    async def _turn(self) -> None:
        self._bury()
        try:
            await self._miss()
            if self._clock.monotonic() - self._counted >= COUNT_SECONDS:
                found = await self._scaler.look()
                self._counted = self._clock.monotonic()
                self._told(found)
                for slot, one in found.items():
                    await self._reach(slot, one.desired - one.load.elsewhere(host_name()))
        except PipelineError as error:  # the workers that there are go on
            if error.message != self._trouble:
                self._say(f"the queue cannot be looked at: {error}")
            self._trouble = error.message
            return
        self._trouble = ""

    async def _reach(self, slot: Slot, number: int) -> None:
        """number: how many workers of that kind this host is to have."""
        here = [one for one in self._workers if one.slot is slot and not one.parting]
        if len(here) < number and self._clock.monotonic() >= self._pauses[slot]:
            self._say(f"{slot}: {counted(number, 'worker')} from now on, after {len(here)}")
            for _ in range(number - len(here)):
                name = new_id(Kind.WORKER, self._clock.now())
                try:
                    child = self._begin(slot, name)
                except OSError as error:
                    self._paused(slot)
                    self._say(f"no process could be begun: {error}")
                    return
                self._workers.append(_Worker(name, slot, child, self._clock.monotonic()))
        surplus = len(here) - number
        for one in here:
            if surplus <= 0:
                break
            if await queue.retire(self._database, names_of(one.name)[slot]):
                one.parting, surplus = True, surplus - 1
                one.child.end()
                self._say(f"{slot}: {counted(number + surplus, 'worker')} from now on; one had nothing to do")

    def _bury(self) -> None:
        """Looks for processes that ended."""
        for one in [one for one in self._workers if not one.child.runs or self._stands_still(one)]:
            self._workers.remove(one)
            ended = one.child.wait()
            one.child.kill()  # what it left open here
            if ended.code == Stopped.exit_code and not one.parting:  # ESTOP, which this process sees a little later
                self._pauses[one.slot] = self._clock.monotonic() + HALTED_SECONDS
            if ended.code == Stopped.exit_code or (one.parting and ended.code == 0):
                continue
            self._dead.append(one.name)
            if self._clock.monotonic() - one.began >= LASTS_SECONDS:
                self._deaths[one.slot] = 0
            self._paused(one.slot)
            self._say(f"a worker for {one.slot} work {ended.story}")

    def _stands_still(self, one: _Worker) -> bool:
        """Whether it did for too long: it is killed then, and what it was doing is undone."""
        now = self._clock.monotonic()
        one.still = min(one.still, now) if stopped(one.child.pid) else float("inf")
        if now - one.still < STILL_SECONDS:
            return False
        self._say(f"a worker for {one.slot} work was stopped for {STILL_SECONDS:.0f} s: it is killed")
        one.child.kill()
        return True

    def _paused(self, slot: Slot) -> None:
        self._pauses[slot] = self._clock.monotonic() + PAUSES[min(self._deaths[slot], len(PAUSES) - 1)]
        self._deaths[slot] += 1
        self._counted = float("-inf")

    async def _miss(self) -> None:
        """Tells the database of those that died, so that nobody waits for the end of their leases."""
        while self._dead:
            held = await missing.gone(self._database, self._state, self._dead[0])
            name = self._dead.pop(0)
            if held:
                self._say(f"{name} had work, which goes to the next worker that asks")

    async def _part(self) -> None:
        ends = self._clock.monotonic() + DRAIN_SECONDS
        for one in self._workers:
            one.parting = True
            one.child.end()
        while self._workers and self._clock.monotonic() < ends:
            self._bury()
            await asyncio.sleep(LOOK_SECONDS)
        for one in self._workers:
            one.child.kill()
        self._bury()
        try:
            await self._miss()
        except PipelineError as error:  # their leases end by themselves, a little later
            self._say(f"the database was not told which workers are gone: {error}")
