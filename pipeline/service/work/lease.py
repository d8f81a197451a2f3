"""What a worker holds: it beats while an attempt lasts, and says when the attempt has to end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.clock import Clock
from pipeline.errors import TemporaryError
from pipeline.service import queue
from pipeline.service.database.statements import Database
from pipeline.service.words import WORKER, Claimed

BEAT_SECONDS, LOOK_SECONDS = 5.0, 0.5
SPARE_SECONDS = 3.0
"""So long before its lease ends a worker that nobody answers gives up by its own clock."""


@dataclass
class Lease:
    """gone: somebody else has the work.  cancel: a person ends it.  confirmed: when the database heard us last."""

    database: Database
    held: Claimed
    clock: Clock
    progress: dict[str, Any] = field(default_factory=dict)
    gone: bool = False
    cancel: bool = False
    confirmed: float = 0.0

    @property
    def lost(self) -> bool:
        """Somebody else may have the work, so nothing of this attempt counts any more.

        By our own clock, whatever a question to the database waits for: it may never be answered.  Once it is so it
        stays so, whatever is answered later.
        """
        self.gone = self.gone or self.clock.monotonic() - self.confirmed > queue.LEASE_SECONDS - SPARE_SECONDS
        return self.gone

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[Lease]:
        """Beats until the block ends."""
        self.confirmed = self.clock.monotonic()
        task = asyncio.ensure_future(self._beat())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _beat(self) -> None:
        while not self.lost:
            try:
                asked = self.clock.monotonic()
                if asked - self.confirmed >= BEAT_SECONDS or not self.progress:
                    beaten = await queue.beat(self.database, self.held, self.progress)
                    self.progress = self.progress or {"iteration": 0}
                    self.gone = self.gone or beaten is None
                    self.cancel = self.cancel or (beaten is not None and beaten.cancel)
                else:
                    await self._look()
                    asked = self.confirmed
                self.confirmed = asked
            except TemporaryError:
                pass  # whoever the database does not answer loses its lease by its own clock
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        """Sees a cancel sooner than the next beat would."""
        async with self.database.reading(WORKER) as statements:
            row = await statements.row(
                """select cancel_requested_at from work
                   where tenant_id = $1 and id = $2 and epoch = $3 and state = 'running'""",
                self.held.tenant, self.held.id, self.held.epoch,
            )  # fmt: skip
        self.gone = self.gone or row is None
        self.cancel = self.cancel or (row is not None and row["cancel_requested_at"] is not None)
