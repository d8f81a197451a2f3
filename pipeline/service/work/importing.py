"""An import as work: an archive becomes a dataset, whose files are the work's one snapshot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import FormatError
from pipeline.process.life import OUT_OF_MEMORY
from pipeline.service import blobs
from pipeline.service.words import WORKER, Claimed, Reason
from pipeline.service.work import import_child as child
from pipeline.service.work.attempt import Hands
from pipeline.service.work.shipping import Shipping, restored


@dataclass
class Importing:
    """One attempt's."""

    module: str = "pipeline.service.work.import_child"
    failed: Mapping[int, Reason] = field(default_factory=lambda: {
        child.BAD_ARCHIVE: Reason.BAD_ARCHIVE, child.BAD_REQUEST: Reason.BAD_SPEC, OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    })  # fmt: skip

    async def fill(self, hands: Hands, held: Claimed, folder: Path) -> None:
        """The archive, and the dataset that is extended."""
        for pieces in (await datafiles_of(hands, held)).values():
            await asyncio.to_thread(blobs.save, hands.store, pieces, folder / child.ARCHIVE)
        if held.body.get("extends_id"):
            await bring(hands, (held.tenant, held.body["extends_id"]), folder / child.EXTENDS)

    def progress(self, folder: Path, iteration: int) -> dict[str, Any]:
        """Entries that were read, and what they are."""
        path = folder / child.PROGRESS
        return dict(json.loads(path.read_bytes())) if path.exists() else {"entries": 0}

    def missed(self) -> None:
        """It tells nothing of its end."""

    def result(self, folder: Path, shipped: Shipping) -> dict[str, Any]:
        """What the dataset holds."""
        return dict(json.loads((folder / child.MADE / child.SUMMARY).read_bytes()))


async def datafiles_of(hands: Hands, held: Claimed) -> dict[str, list[dict[str, Any]]]:
    """The pieces of each datafile that work names."""
    async with hands.database.reading(WORKER) as statements:
        rows = await statements.rows(
            """select inputs.name, datafiles.chunks from inputs join datafiles
               on datafiles.tenant_id = inputs.tenant_id and datafiles.id = inputs.datafile_id
               where inputs.tenant_id = $1 and inputs.work_id = $2""",
            held.tenant, held.id,
        )  # fmt: skip
    return {row["name"]: json.loads(row["chunks"]) for row in rows}


async def bring(hands: Hands, of: tuple[str, str], folder: Path) -> None:
    """Writes a dataset's files into a new folder.  of: tenant and dataset.  Raises FormatError where one is damaged."""
    async with hands.database.reading(WORKER) as statements:
        row = await statements.row("select files from snapshots where tenant_id = $1 and work_id = $2", *of)
    files = json.loads(row["files"]) if row is not None else []
    if not files or not await asyncio.to_thread(restored, hands.store, files, folder):
        raise FormatError("the dataset's files are not what was put", of[1], "make the dataset again")
