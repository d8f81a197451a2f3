"""What a child leaves in its folder, on its way to the bucket: metrics, log and snapshots, as they appear.

Bytes are put before the row that names them; an attempt that is fenced leaves objects that no row ever names.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import FormatError, NotFound
from pipeline.service import blobs, queue
from pipeline.service.database.statements import Database
from pipeline.service.keys import TenantKeys
from pipeline.service.neutral import neutral
from pipeline.service.queue import Chunk, Snapshot
from pipeline.service.summing import Summary, Summing
from pipeline.service.thinning import points_of, rows_of
from pipeline.service.words import WORKER, Claimed
from pipeline.service.work.preparing import EVALUATION, EVALUATION_BYTES, SERVING
from pipeline.stores.store import Store

PIECE = 2**20
LOG_BYTES = 64 * 2**20
"""Of the log of one attempt; what comes beyond is left out, and that is said."""
MANIFEST = "_manifest.json"
"""A snapshot is there once it has one."""


@dataclass
class Shipping:
    """One attempt's.  iteration: the last that a row of metrics told of; newest: the last snapshot that is kept.

    evaluation: as `finish` tells it; None where there is none.
    """

    database: Database
    store: Store
    held: Claimed
    out: Path
    newest: int = 0
    iteration: int = 0
    files: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, Any] | None = None
    _taken: dict[str, int] = field(default_factory=dict)
    _number: int = 0
    _summing: Summing = field(default_factory=Summing)
    _told: dict[str, tuple[Chunk, bytes, int]] = field(default_factory=dict)
    """By kind what nobody has confirmed yet: it is told again as it was, since the answer alone may be lost."""

    async def ship(self) -> bool:
        """All that is there and was not shipped yet; False: the work is not this worker's any more."""
        return (
            await self._lines("metrics", "metrics.jsonl")
            and await self._lines("log", "log.txt")
            and await self._snapshots()
            and await self._evaluation()
        )

    async def _lines(self, kind: str, name: str) -> bool:
        path = self.out / name
        there = path.stat().st_size if path.exists() else 0  # what is written meanwhile is the next time's
        while kind in self._told or (self._taken.get(kind, 0) < there and self._begin(kind, self._next(kind, path))):
            chunk, shown, taken = self._told[kind]
            await blobs.put(self.store, chunk.key, shown)
            if not await queue.ship(self.database, self.held, chunk):
                return False
            self._taken[kind] = taken
            del self._told[kind]
        return True

    def _begin(self, kind: str, text: bytes) -> bool:
        """Makes a chunk of lines; False: there are none."""
        if not text:
            return False
        first = self._taken.get(kind, 0)
        taken, last = first + len(text), first + len(text) - 1
        summaries: tuple[Summary, ...] = ()
        if kind == "metrics":
            rows = rows_of(text)
            steps = [row["step"] for row in rows]
            first, last = min(steps), max(steps)
            self.iteration = max(self.iteration, last)
            summaries = self._summing.add(points_of(rows), first, last)
        self._number += 1
        key = TenantKeys(self.held.tenant).chunk(self.held.id, self.held.epoch, kind, self._number)
        shown = text.replace(f"{self.out.parent}/".encode(), b"")  # where this host works is nobody's business
        if kind == "log":  # a library's warnings name where it is installed
            lines = shown.decode("utf-8", "surrogateescape")
            shown = neutral(lines, web=False).encode("utf-8", "surrogateescape")
        self._told[kind] = Chunk(kind, first, last, len(shown), key, summaries), shown, taken
        return True

    def _next(self, kind: str, path: Path) -> bytes:
        """Whole lines that were not shipped yet, at most a piece; b"" where there are none."""
        taken = self._taken.get(kind, 0)
        if kind == "log" and taken > LOG_BYTES:
            return b""
        with path.open("rb") as file:
            file.seek(taken)
            text = file.read(PIECE)
        if len(text) < PIECE or b"\n" in text:
            text = text[: text.rfind(b"\n") + 1]
        if kind == "log" and text and taken + len(text) > LOG_BYTES:
            return text + b"the rest of this attempt's log is left out\n"
        return text

    async def _snapshots(self) -> bool:
        folders = sorted((self.out / "snapshots").glob("[0-9]*"), key=lambda one: int(one.name))
        for folder in folders:
            at = int(folder.name)
            if at > self.newest and (folder / MANIFEST).exists():
                if not await self._keep(folder, at):
                    return False
                for earlier in folders[: folders.index(folder)]:  # the bucket has it: the disk need not
                    await asyncio.to_thread(shutil.rmtree, earlier, True)
        return True

    async def _evaluation(self) -> bool:
        """Puts what the last test says of its examples once the child has told it; the end of the work names it."""
        path = self.out / EVALUATION
        if self.evaluation is None and path.exists() and path.stat().st_size <= EVALUATION_BYTES:
            content = path.read_bytes()
            key = TenantKeys(self.held.tenant).snapshot(self.held.id, self.held.epoch, self.newest, EVALUATION)
            await blobs.put(self.store, key, content)
            self.evaluation = {"name": EVALUATION, **blobs.described(key, content)}
        return True

    async def _keep(self, folder: Path, at: int) -> bool:
        keys, files = TenantKeys(self.held.tenant), []
        beside = [path for path in (self.out / SERVING,) if path.exists()]
        for path in [*beside, *sorted(folder.iterdir(), key=lambda one: (one.name == MANIFEST, one.name))]:
            key = keys.snapshot(self.held.id, self.held.epoch, at, _outside(path.name))
            await blobs.put(self.store, key, path)
            said = {"name": _outside(path.name), "key": key, "size": path.stat().st_size, "sha256": await _digest(path)}
            files.append(said)
        if not await queue.keep(self.database, self.held, Snapshot(at, files)):
            return False
        self.newest, self.iteration, self.files = at, max(self.iteration, at), files
        return True


async def restore(database: Database, store: Store, held: Claimed, out: Path) -> tuple[int, list[dict[str, Any]]]:
    """Writes the newest snapshot that is whole where the child goes on from it.

    Its iteration and its files, 0 and none without one: work that was at its end already has them as its result.
    A training that goes on from another one's snapshot begins with that.  Raises FormatError where it is damaged.
    """
    async with database.reading(WORKER) as statements:
        rows = await statements.rows(
            """select iteration, files from snapshots where tenant_id = $1 and work_id = $2
               order by iteration desc limit 5""",
            held.tenant, held.id,
        )  # fmt: skip
        other = await statements.rows(
            """select snapshots.iteration, snapshots.files from resumed join snapshots
               on snapshots.tenant_id = resumed.tenant_id and snapshots.work_id = resumed.origin_id
               and (resumed.iteration is null or snapshots.iteration = resumed.iteration)
               where resumed.tenant_id = $1 and resumed.work_id = $2 order by snapshots.iteration desc limit 1""",
            held.tenant, held.id,
        )  # fmt: skip
    if rows or other:
        (out / "snapshots").mkdir(parents=True)
    for row in [*rows, *other]:
        folder = out / "snapshots" / str(row["iteration"])
        files: list[dict[str, Any]] = json.loads(row["files"])
        if await asyncio.to_thread(restored, store, files, folder):
            return int(row["iteration"]), files
    if other:
        says = f"the snapshot of iteration {other[0]['iteration']} to go on from is not what was put"
        raise FormatError(says, "", "resume from an earlier one: `iteration`")
    return 0, []


def restored(store: Store, files: list[dict[str, Any]], folder: Path) -> bool:
    """Writes the files of a snapshot into a new folder; False where one is not what was put: nothing is left then."""
    folder.mkdir()
    for one in files:
        if one["name"] == SERVING:  # each attempt tells it anew
            continue
        path = folder / _inside(one["name"])
        try:
            whole = blobs.copied(store, one["key"], path, one["sha256"])
        except NotFound:
            whole = False
        if not whole:
            shutil.rmtree(folder)
            return False
    return True


def _outside(name: str) -> str:
    """As the API calls a file: no name begins with `_`."""
    return name.lstrip("_")


def _inside(name: str) -> str:
    return MANIFEST if name == _outside(MANIFEST) else name


async def _digest(path: Path) -> str:
    return await asyncio.to_thread(blobs.digest, path)
