"""A copy of the service: all rows as they were at one instant, and the objects that they name.

In a folder, which many backups share: `objects/` has each object once, whichever of them name it, since an object never
changes; `VERSION/` has a file of rows for each table, the list of objects with their SHA-256, and the manifest, which
is written last: a backup exists when its manifest exists.  Rows come first and objects after, since data are put
before their rows: what a row names is there, and nobody prunes while a backup runs.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from pipeline.amounts import counted, size
from pipeline.clock import Clock
from pipeline.errors import FormatError, NotFound
from pipeline.ledger.layout import version_of
from pipeline.service import blobs
from pipeline.service.database import copying
from pipeline.service.naming import NAMING, Named, objects_of
from pipeline.stores.store import Store

FORMAT = 1
OBJECTS = "objects/"
MANIFEST = "manifest.json"
LIST = "objects.jsonl.gz"
MANIFEST_BYTES = 2**20
VERSION = re.compile(r"\d{8}T\d{6}Z")
SHOWN = 20
Told = Callable[[int, int], None]
"""So many objects more are done, of so many more."""


@dataclass(frozen=True)
class Manifest:
    """What a backup consists of.  migration: of the database; digests: SHA-256 of each file; rows: of each table.

    copied: whether the objects lie beside it; absent: those that rows named and that were not there, or torn.
    """

    migration: int
    rows: dict[str, int]
    digests: dict[str, str]
    objects: int
    bytes: int
    copied: bool
    absent: tuple[str, ...] = ()
    format: int = FORMAT
    version: str = ""

    def as_json(self) -> dict[str, Any]:
        """The same as values of JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person."""
        how = "copied" if self.copied else "listed, not copied"
        found = [
            f"backup {self.version}: {counted(sum(self.rows.values()), 'row')} of {counted(len(self.rows), 'table')}, "
            f"{counted(self.objects, 'object')} ({size(self.bytes)}) {how}"
        ]
        if self.absent:
            found.append(f"{counted(len(self.absent), 'object')} that rows name: missing or torn in the bucket")
        return found + [f"missing: {key}" for key in self.absent[:SHOWN]]


@dataclass
class _Files:
    """The files of one backup, written locally first."""

    store: Store
    version: str
    scratch: Path
    digests: dict[str, str] = field(default_factory=dict)

    async def put(self, name: str, path: Path) -> None:
        """Raises PipelineError."""
        self.digests[name] = await asyncio.to_thread(blobs.digest, path)
        await blobs.put(self.store, f"{self.version}/{name}", path)


async def back_up(setting: str, store: Store, into: Store, clock: Clock, *, copy: bool, told: Told) -> Manifest:
    """setting: the database; store: its bucket; into: where the backup lies; copy: the objects, too.

    Raises Held while another backup or a prune runs; FormatError for rows that cannot be written; PipelineError.
    """
    version = version_of(clock.now())
    async with copying.alone(setting):
        with tempfile.TemporaryDirectory(prefix="hathi-backup-") as scratch:
            files = _Files(into, version, Path(scratch))
            rows: dict[str, int] = {}
            keys: dict[str, Named] = {}
            async with copying.snapshot(setting) as found:
                for table in copying.tables_until(found.number):
                    rows[table] = await _written(files, found, table, keys)
            objects = await _objects(files, store, list(keys.values()), copy=copy, told=told)
        total = sum(one.size for one in keys.values())
        manifest = Manifest(
            found.number, rows, files.digests, len(keys), total, copy, tuple(objects), version=version
        )  # fmt: skip
        text = json.dumps(manifest.as_json(), sort_keys=True).encode()
        await asyncio.to_thread(into.put_new, f"{version}/{MANIFEST}", text)
    return manifest


async def _written(files: _Files, found: copying.Rows, table: str, keys: dict[str, Named]) -> int:
    """A table into a file; what its rows name is added to the keys.  How many rows."""
    path, number = files.scratch / f"{table}.jsonl.gz", 0
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=3) as file:
        async for row in found.rows(table):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            number += 1
            if table in NAMING:
                keys.update((one.key, one) for one in objects_of(table, row))
    await files.put(path.name, path)
    path.unlink()
    return number


async def _objects(files: _Files, store: Store, named: list[Named], *, copy: bool, told: Told) -> list[str]:
    """Copies and lists them; the keys of those that are not what the rows say."""
    told(0, len(named))
    there = {entry.key: entry.size for entry in files.store.list(OBJECTS)} if copy else {}
    path, absent = files.scratch / LIST, []
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for one in sorted(named, key=lambda one: one.key):
            stands = there.get(OBJECTS + one.key) == one.size
            if one.sha256 and (stands or not copy):
                sha256 = one.sha256
            elif stands:
                sha256 = await asyncio.to_thread(blobs.digest_of, files.store, OBJECTS + one.key)
            else:
                target = files.store if copy else None
                sha256 = await asyncio.to_thread(moved, (store, one.key), (target, OBJECTS + one.key), one)
            if sha256:
                _line(file, {"key": one.key, "size": one.size, "sha256": sha256})
            else:
                absent.append(one.key)
            told(1, 0)
    await files.put(LIST, path)
    return absent


def _line(file: IO[str], value: dict[str, Any]) -> None:
    file.write(json.dumps(value) + "\n")


def moved(source: tuple[Store, str], target: tuple[Store | None, str], one: Named) -> str:
    """Copies an object, and says its SHA-256; "" where it is not there, or not what its row says: nothing is put then.

    target: without a store it is read alone.  Raises PipelineError.
    """
    try:
        if one.size <= blobs.PIECE:
            content = source[0].get(source[1])
            found, length = hashlib.sha256(content).hexdigest(), len(content)
            if length == one.size and one.sha256 in ("", found) and target[0] is not None:
                target[0].put(target[1], content)
        else:
            with tempfile.NamedTemporaryFile(prefix="hathi-object-") as file:
                path = Path(file.name)
                blobs.copied(source[0], source[1], path, one.sha256)
                found, length = blobs.digest(path), path.stat().st_size
                if length == one.size and one.sha256 in ("", found) and target[0] is not None:
                    target[0].put(target[1], path)
    except NotFound:
        return ""
    return found if length == one.size and one.sha256 in ("", found) else ""


def versions(store: Store) -> list[str]:
    """The backups that exist, the oldest first."""
    keys = (entry.key for entry in store.list("") if entry.key.endswith(f"/{MANIFEST}"))
    found = (key.split("/")[0] for key in keys if key.count("/") == 1)
    return sorted(one for one in found if VERSION.fullmatch(one))


def manifest_of(store: Store, version: str) -> Manifest:
    """Raises FormatError for one that this version cannot read; NotFound."""
    key = f"{version}/{MANIFEST}"
    hint = "use the version of Hathi that wrote it, or a newer one"
    try:
        said = json.loads(store.get(key, MANIFEST_BYTES))
        if said.get("format") != FORMAT:
            raise FormatError(f"the backup {version} has format {said.get('format')!r}", f"known: {FORMAT}", hint)
        return Manifest(**{**said, "absent": tuple(said["absent"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"the manifest of the backup {version} cannot be read", str(error), hint) from error


def lines_of(store: Store, manifest: Manifest, name: str) -> Iterator[dict[str, Any]]:
    """The rows of a file of a backup.  Raises FormatError for one that was changed; PipelineError."""
    key = f"{manifest.version}/{name}"
    try:
        with store.open(key) as file, gzip.open(file, "rt", encoding="utf-8") as text:
            for line in text:
                yield json.loads(line)
    except (OSError, ValueError, EOFError) as error:
        raise _torn(key, str(error)) from error


def verified(store: Store, manifest: Manifest) -> None:
    """Raises FormatError where a file of rows is changed since it was written; PipelineError."""
    for name, digest in manifest.digests.items():
        key = f"{manifest.version}/{name}"
        if blobs.digest_of(store, key) != digest:
            raise _torn(key, "its SHA-256 is another one")


def _torn(key: str, detail: str) -> FormatError:
    return FormatError(f"{key} of the backup was changed after it was written", detail, "restore another backup")
