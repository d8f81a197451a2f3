"""One attempt at work: a child runs, and what it leaves goes to the bucket until it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pipeline.clock import Clock
from pipeline.errors import PipelineError, SolverError, TemporaryError
from pipeline.process.child import Child, Ended, python_of
from pipeline.service import eta, queue, tallies
from pipeline.service.database.statements import Database
from pipeline.service.fetching import fetcher_for
from pipeline.service.neutral import neutral, within
from pipeline.service.promotion import Promoter
from pipeline.service.serving.parent import Sizes
from pipeline.service.words import Claimed, Ending, Reason, Slot, State
from pipeline.service.work import preparing, room
from pipeline.service.work.lease import Lease
from pipeline.service.work.shipping import Shipping, restore
from pipeline.service.work.wanted import Unwanted, given_up, wanted
from pipeline.settings import Fetch
from pipeline.stores.store import Store

if TYPE_CHECKING:
    from pipeline.fetch.fetcher import Fetcher

LOOK_SECONDS, SHIP_SECONDS = 0.2, 1.0
PATIENCE = {"lost": 0.0, "cancel": 3.0, "time": 3.0, "part": 25.0}
"""So long a child has to end after it was asked to, by why: a lost lease, a person, its own limit, the worker's end."""
LAST_WORDS_SECONDS, LAST_SNAPSHOT_SECONDS = 1.0, 20.0
"""So long what a child left is on its way to the bucket once a person cancelled, and once the worker is to end."""
PARTING_SECONDS = PATIENCE["part"] + LAST_SNAPSHOT_SECONDS + 5.0
"""So long a worker has to end once it was asked to: its child, what that left, and what the database has to hear."""
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "OMP_WAIT_POLICY")
DETAIL = 2000
"""Letters of what is told, at most."""
_LEFT = (75, 4)
"""Exit codes of a child that was asked to end."""
T = TypeVar("T")


@dataclass(frozen=True)
class Hands:
    """What a worker works with.  scratch: a local folder.  stopping: whether the worker is to end.  say: to its log.

    fetcher: a new one, for URLs of strangers; sizes: of the process that holds a net.  promoter: puts models into use.
    """

    database: Database
    store: Store
    clock: Clock
    scratch: Path
    stopping: Callable[[], bool]
    say: Callable[[str], None]
    fetcher: Callable[[], Fetcher] = field(default_factory=lambda: fetcher_for(Fetch()))
    sizes: Sizes = field(default_factory=Sizes)
    promoter: Promoter | None = None

    def told(self, held: Claimed, error: object, folder: Path) -> str:
        """What a tenant is told of it, without where this host and its stores are; the whole of it goes to the log.

        error: it, or what a child printed.  folder: where the work was done.
        """
        whole = str(error).replace("\0", "")[-DETAIL:] if isinstance(error, str) else str(error)[:DETAIL]
        here = within(whole, str(folder))
        text = neutral(here)
        if text != here:
            self.say(f"{held.id}: {whole}")
        return text


class Errand(Protocol):
    """What work of one kind is.  module: of its child, which is given its folder.  failed: what its exit codes mean."""

    module: str
    failed: Mapping[int, Reason]

    async def fill(self, hands: Hands, held: Claimed, folder: Path) -> None:
        """Puts what the child needs into its folder.  Raises PipelineError, OSError."""

    def progress(self, folder: Path, iteration: int) -> dict[str, Any]:
        """Where it is.  iteration: the last that a row of metrics told of."""

    def result(self, folder: Path, shipped: Shipping) -> dict[str, Any]:
        """What a child that ended well has made."""

    def missed(self) -> eta.Missed | None:
        """How far what it told of its end is from now, as it succeeds; None: it told nothing."""


async def attempt(hands: Hands, held: Claimed, errand: Errand) -> None:
    """Goes on until the end, a cancel, the worker's own end, or until the work is somebody else's.

    Raises TemporaryError where this worker had better rest: it has parted with the work then.
    """
    if held.cancel:
        await queue.finish(hands.database, held, Ending(State.CANCELLED))
        return
    async with placed(hands, held) as folder, Lease(hands.database, held, hands.clock).beating() as lease:
        await _Attempt(hands, errand, lease, folder).run()
        if lease.lost:
            hands.say(f"{held.id}: another worker has it now, or will have it")


@contextlib.asynccontextmanager
async def placed(hands: Hands, held: Claimed) -> AsyncIterator[Path]:
    """A folder, deleted at the end.  Raises TemporaryError where the disk has none: the work is parted with."""
    try:
        hands.scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{held.id}-", dir=hands.scratch))
    except OSError as error:
        await queue.release(hands.database, held)
        raise room.no_room(hands.scratch, str(error)) from error
    try:
        yield folder
    finally:
        await asyncio.to_thread(room.deleted, folder)


class _Attempt:
    def __init__(self, hands: Hands, errand: Errand, lease: Lease, folder: Path) -> None:
        held = lease.held
        self._hands, self._held, self._lease, self._folder = hands, held, lease, folder
        self._errand = errand
        self._ends = hands.clock.monotonic() + held.seconds_left
        self._shipping = Shipping(hands.database, hands.store, held, folder / preparing.OUT)

    async def run(self) -> None:
        """Raises TemporaryError where the worker had better rest."""
        try:
            await wanted(self._fill(), self._why)
        except Unwanted as end:
            await self._told(Ended(_LEFT[0]), end.why)
            return
        except TemporaryError:
            await self._release()
            raise
        except SolverError as error:
            await self._finish(Ending(State.FAILED, Reason.BAD_SPEC, self._said(error)))
            return
        except (PipelineError, OSError) as error:
            if room.is_full(error):
                await self._no_room(error)
            await self._finish(Ending(State.FAILED, Reason.NO_DATA, self._said(error)))
            return
        environ = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environ["HOME"] = str(self._folder)
        try:
            child = Child(python_of(self._errand.module, str(self._folder)), environ)
        except OSError as error:  # the host's limits, not the work's
            await self._release()
            hint = "are its processes, files or memory used up?"
            raise TemporaryError("this host begins no more processes", str(error), hint, room.REST_SECONDS) from error
        ended = asyncio.ensure_future(asyncio.to_thread(child.wait))
        shipped = asyncio.ensure_future(self._ships(ended))
        try:
            asked = await self._watched(child, ended, shipped)
            whole = await self._brought(shipped)
        finally:
            await asyncio.to_thread(child.kill)
            await given_up(shipped)
        await self._told(ended.result() if whole else Ended(_LEFT[0]), asked)

    async def _fill(self) -> None:
        """The folder: what the errand asks for, and the snapshot to go on from.  Raises PipelineError, OSError."""
        held, hands = self._held, self._hands
        (self._folder / preparing.WORK).write_text(json.dumps(held.body))
        await self._errand.fill(hands, held, self._folder)
        found = await restore(hands.database, hands.store, held, self._folder / preparing.OUT)
        self._shipping.newest, self._shipping.files = found
        self._shipping.iteration = self._shipping.newest

    async def _watched(self, child: Child, ended: asyncio.Future[Ended], shipped: asyncio.Future[None]) -> str:
        """Why the child was asked to end, as `_why`, once it has.

        What it writes is shipped beside: a bucket that answers late holds up no end.
        """
        asked, killed_at = "", float("inf")
        while not ended.done():
            now, why = self._hands.clock.monotonic(), self._why()
            if why and why != asked:
                if not asked:
                    child.end()
                asked, killed_at = why, min(killed_at, now + PATIENCE[why])
            if now >= killed_at:
                await asyncio.to_thread(child.kill)
                killed_at = float("inf")
            if shipped.done():
                shipped.result()
            await asyncio.wait([ended], timeout=LOOK_SECONDS)
        return asked

    def _why(self) -> str:
        """Why the attempt has to end, what is most urgent of it; "": it goes on."""
        if self._lease.lost:
            return "lost"
        if self._lease.cancel:
            return "cancel"
        if self._hands.clock.monotonic() >= self._ends:
            return "time"
        return "part" if self._hands.stopping() else ""

    async def _ships(self, ended: asyncio.Future[Ended]) -> None:
        """Ships what there is, until all is in the bucket that an ended child left, or the work is another's."""
        while True:
            last = ended.done()
            if await self._ship() and last:
                return
            await asyncio.wait([ended], timeout=SHIP_SECONDS)
            if last:
                await asyncio.sleep(SHIP_SECONDS)

    async def _ship(self) -> bool:
        """Whether all that is there is in the bucket, and named."""
        try:
            if not self._lease.lost and not await self._shipping.ship():
                self._lease.gone = True
        except TemporaryError as error:
            self._hands.say(f"{self._held.id}: {error}")
            return False
        self._lease.progress = self._errand.progress(self._folder, self._shipping.iteration)
        return True

    async def _brought(self, shipped: asyncio.Future[None]) -> bool:
        """Whether all that a child left is in the bucket: tried until a cancel or the worker's end hurries it."""
        clock, ends = self._hands.clock, float("inf")
        while not shipped.done() and not self._lease.lost:
            now = clock.monotonic()
            if self._lease.cancel:
                ends = min(ends, now + LAST_WORDS_SECONDS)
            elif self._hands.stopping():
                ends = min(ends, now + LAST_SNAPSHOT_SECONDS)
            if now >= ends:
                return False
            await asyncio.wait([shipped], timeout=LOOK_SECONDS)
        if shipped.done() and not self._lease.cancel:
            shipped.result()
        return True

    async def _told(self, ended: Ended, asked: str) -> None:
        """Tells what came of it.  Raises TemporaryError where the worker had better rest."""
        if self._lease.lost:
            return
        printed = ended.printed.decode("utf-8", "replace")
        if self._lease.cancel:
            await self._finish(Ending(State.CANCELLED))
        elif ended.code == 0:
            await self._finish(Ending(State.SUCCEEDED, result=self._errand.result(self._folder, self._shipping)))
        elif asked == "time":
            says = "it was not at its end after max_seconds; its snapshots are kept"
            await self._finish(Ending(State.FAILED, Reason.TIME_LIMIT, says))
        elif ended.code == room.NO_ROOM:
            await self._no_room(printed)
        elif ended.code in self._errand.failed:
            await self._finish(Ending(State.FAILED, self._errand.failed[ended.code], self._said(printed)))
        elif asked == "part" or ended.code in _LEFT:
            await self._release()
        else:
            self._hands.say(f"{self._held.id}: its process {ended.how}")
            says = f"its process {ended.how}\n{self._said(printed)}"
            await self._surely(lambda: queue.strike(self._hands.database, self._held, says))

    def _said(self, error: object) -> str:
        return self._hands.told(self._held, error, self._folder)

    async def _no_room(self, error: object) -> None:
        """A strike, since the work may be too large for any disk; others may have it meanwhile."""
        says = self._said(error)
        await self._surely(lambda: queue.strike(self._hands.database, self._held, says, Reason.DISK_LIMIT))
        raise room.no_room(self._hands.scratch, str(error).strip().rpartition("\n")[2])

    async def _release(self) -> None:
        await self._surely(lambda: queue.release(self._hands.database, self._held))

    async def _finish(self, ending: Ending) -> None:
        async def finish() -> State | None:
            await queue.beat(self._hands.database, self._held, self._lease.progress)
            return await queue.finish(self._hands.database, self._held, ending)

        state = await self._surely(finish)
        if state is None:
            self._lease.gone = True
            return
        self._hands.say(f"{self._held.id}: {state}")
        if state is State.SUCCEEDED and (missed := self._errand.missed()) is not None:
            await self._tallied(missed)

    async def _tallied(self, missed: eta.Missed) -> None:
        try:
            await tallies.add(self._hands.database, Slot.TRAIN, tallies.of(missed))
        except TemporaryError as error:  # one example less, of a figure
            self._hands.say(f"{self._held.id}: how good its ETA was is not counted: {error}")

    async def _surely(self, verb: Callable[[], Awaitable[T]]) -> T | None:
        """What the database says once it answers; None: the lease ended before."""
        while not self._lease.lost:
            try:
                return await verb()
            except TemporaryError as error:
                self._hands.say(f"{self._held.id}: {error}")
                await asyncio.sleep(SHIP_SECONDS)
        return None
