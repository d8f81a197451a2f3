"""A backup becomes a service again: its objects into the bucket, then its rows into an empty database, all or none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.amounts import counted
from pipeline.errors import ConfigError, NotFound, PermanentError
from pipeline.service import states
from pipeline.service.backup import (
    LIST,
    OBJECTS,
    SHOWN,
    Manifest,
    Told,
    lines_of,
    manifest_of,
    moved,
    verified,
    versions,
)
from pipeline.service.database import copying, migrating
from pipeline.service.database.statements import Row
from pipeline.service.keys import TOP
from pipeline.service.naming import Named
from pipeline.service.words import State
from pipeline.stores.store import Store

EPOCHS = 1000
"""Attempts go on so many numbers later: whoever held work before the restore can neither end it nor share its names."""


@dataclass(frozen=True)
class Restored:
    """put: objects that were put into the bucket; there: that it had; missing: that neither has."""

    version: str
    rows: dict[str, int]
    put: int
    there: int
    missing: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as values of JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person."""
        found = [
            f"backup {self.version} is restored: {counted(sum(self.rows.values()), 'row')} in the database, "
            f"{counted(self.put, 'object')} put into the bucket, {counted(self.there, 'object')} there already"
        ]
        return found + [f"missing: {key}" for key in self.missing[:SHOWN]]


async def restore(setting: str, store: Store, source: Store, version: str, *, copy: bool, told: Told) -> Restored:
    """source: where backups lie; version: "" for the newest; copy: the objects, too; without, the bucket is as it is.

    Raises ConfigError for a database that is not empty, or of a newer Hathi; PermanentError where an object is neither
    in the bucket nor in the backup (nothing is restored then); FormatError, Held, PipelineError.
    """
    manifest = _chosen(source, version)
    if manifest.migration > migrating.wanted():
        says = f"the backup is at migration {manifest.migration}, and this version knows {migrating.wanted()}"
        raise ConfigError(says, "a newer Hathi wrote it", "restore it with that version")
    verified(source, manifest)
    async with copying.alone(setting):
        if not await copying.is_empty(setting):
            hint = "a backup is restored into an empty database: give another service.database"
            raise ConfigError("the database is not empty: nothing was restored", "", hint)
        put, there = await _objects(store, source, manifest, told) if copy else (0, 0)

        def rows(table: str) -> Iterator[Row]:
            for row in lines_of(source, manifest, f"{table}.jsonl.gz"):
                if (found := as_restored(table, row)) is not None:
                    yield found

        counts = await copying.load(setting, manifest.migration, rows)
    return Restored(manifest.version, counts, put, there, manifest.absent)


def _chosen(source: Store, version: str) -> Manifest:
    found = versions(source)
    if not found:
        raise NotFound("there is no backup", repr(source), "a backup has a folder of its own with a manifest.json")
    if version and version not in found:
        raise NotFound(f"there is no backup {version}", f"there are {', '.join(found[-10:])}")
    return manifest_of(source, version or found[-1])


async def _objects(store: Store, source: Store, manifest: Manifest, told: Told) -> tuple[int, int]:
    """Puts those that are not in the bucket yet.  Raises PermanentError where one is nowhere."""
    there = {entry.key: entry.size for entry in store.list(TOP)}
    told(0, manifest.objects - len(manifest.absent))
    put = had = 0
    lost = []
    for said in lines_of(source, manifest, LIST):
        one = Named(said["key"], said["size"], said["sha256"])
        if there.get(one.key) == one.size:
            had += 1
        elif await asyncio.to_thread(moved, (source, OBJECTS + one.key), (store, one.key), one):
            put += 1
        else:
            lost.append(one.key)
        told(1, 0)
    if lost:
        hint = (
            "restore the bucket before; or --without-objects restores the rows alone, and `check` names what is missing"
        )
        says = f"{counted(len(lost), 'object')} neither in the bucket nor in the backup: no row was restored"
        raise PermanentError(says, ", ".join(lost[:SHOWN]), hint)
    return put, had


def as_restored(table: str, row: Row) -> Row | None:
    """A row as it goes on; None: it says something of processes that are gone."""
    if table == "workers":
        return None
    if table == "work" and State(row["state"]) not in states.TERMINAL:
        found = {**row, "epoch": row["epoch"] + EPOCHS}
        if row["state"] == State.RUNNING:
            found |= {"state": str(State.QUEUED), "worker_id": None, "lease_until": None, "version": row["version"] + 1}
        return found
    if table == "datafiles" and row["received"] < row["size"]:
        return {**row, "epoch": row["epoch"] + EPOCHS}
    return row
