"""Training as work: what its child is given, how far it is, and what came of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.clock import Clock
from pipeline.errors import SolverError
from pipeline.process.life import OUT_OF_MEMORY
from pipeline.service import blobs, eta
from pipeline.service.specification.words import INPUTS
from pipeline.service.words import WORKER, Claimed, Reason
from pipeline.service.work import child, importing, preparing
from pipeline.service.work.attempt import Hands
from pipeline.service.work.shipping import Shipping


@dataclass
class Training:
    """One attempt's."""

    clock: Clock
    module: str = "pipeline.service.work.child"
    failed: Mapping[int, Reason] = field(default_factory=lambda: {
        2: Reason.BAD_SPEC, 3: Reason.DIVERGED, 71: Reason.OUT_OF_MEMORY, OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
        child.NO_ENGINE: Reason.ENGINE_MISSING, child.NO_DATA: Reason.NO_DATA,
    })  # fmt: skip
    _of: int | None = None
    _pace: eta.Pace | None = None
    _told: eta.Told | None = None

    async def fill(self, hands: Hands, held: Claimed, folder: Path) -> None:
        """Texts that were judged, and the dataset or the job's own inputs."""
        async with hands.database.reading(WORKER) as statements:
            solver = await statements.row(
                """select judgements.* from judgements join work
                   on work.tenant_id = judgements.tenant_id and work.solver_id = judgements.solver_id
                   where work.tenant_id = $1 and work.id = $2""",
                held.tenant, held.id,
            )  # fmt: skip
        if solver is None:
            raise SolverError("an older Hathi took this solver unread", "", "post the solver again, and the job")
        (folder / preparing.SOLVER).write_text(solver["solver"])
        (folder / preparing.NET).write_text(solver["net"])
        (folder / INPUTS).mkdir()
        for name, pieces in (await importing.datafiles_of(hands, held)).items():
            await asyncio.to_thread(blobs.save, hands.store, pieces, folder / INPUTS / name)
        if solver["dataset_id"] is not None:
            of = (held.tenant, solver["dataset_id"])
            await importing.bring(hands, of, folder / preparing.DATASET)

    def progress(self, folder: Path, iteration: int) -> dict[str, Any]:
        """Iteration, how many there are, and the seconds that are left."""
        now = self.clock.monotonic()
        if self._of is None and (folder / preparing.PREPARED).exists():
            self._of = json.loads((folder / preparing.PREPARED).read_bytes())["max_iter"]
        self._pace = eta.Pace(iteration, now) if self._pace is None else eta.moved(self._pace, iteration, now)
        left = eta.seconds_left(self._pace, self._of) if self._of is not None else None
        if left is not None and self._told is None:
            self._told = eta.Told(now, left)
        return {"iteration": iteration, "of": self._of, "seconds_left": left}

    def missed(self) -> eta.Missed | None:
        """How far what it told of its end is from now; None: it told nothing."""
        return eta.missed(self._told, self.clock.monotonic()) if self._told is not None else None

    def result(self, folder: Path, shipped: Shipping) -> dict[str, Any]:
        """The last snapshot, which holds the model."""
        told = {"evaluation": shipped.evaluation} if shipped.evaluation is not None else {}
        return {"iteration": shipped.newest, "files": [one["name"] for one in shipped.files], **told}
