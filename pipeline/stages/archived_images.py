"""What the archive has of the refs of a batch, so that no host is asked for it (docs/protocol.md 17).

The indexes of a version are read once by each process, when a batch of that version first asks, into a table on the
local disk: what that costs is a small part of the images themselves, and nothing of other versions is looked at.
What is lost or damaged is named, and its images are fetched.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.codec.packs import PackRow, read_index
from pipeline.errors import FormatError, NotFound
from pipeline.extraction.spill import Origin
from pipeline.ledger.archive import Archived, archived
from pipeline.ledger.data import Damaged, load_data
from pipeline.ledger.layout import ArchivedBatch, ShipmentName
from pipeline.ledger.manifest import DataFile
from pipeline.ledger.protocol import Context, readable
from pipeline.records import ImageRef
from pipeline.stores.local import typed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TABLES = """
create table packs (id integer primary key, key text not null, batch text not null);
create table images (
    ref blob primary key, pack integer not null, offset integer not null, length integer not null,
    sha256 blob not null, fetched integer not null, etag text, modified text,
    resource blob
) without rowid;
"""
_INSERT = """
insert into images values (?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict (ref) do update set
    pack = excluded.pack, offset = excluded.offset, length = excluded.length, sha256 = excluded.sha256,
    fetched = excluded.fetched, etag = excluded.etag, modified = excluded.modified,
    resource = excluded.resource
where excluded.fetched > images.fetched
"""
_Found = tuple[int, int, int, bytes, int, str | None, str | None, bytes | None]
"""Pack, offset, length, SHA-256, microseconds since 1970, ETag, Last-Modified, resource."""


class Images:
    """The archived images of one batch, by the place of their refs; in a file that goes with this value."""

    def __init__(self, context: Context, folder: Path) -> None:
        self._context = context
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._places: dict[int, tuple[int, int, Origin, str]] = {}
        self._size = 0
        self.served = 0

    def copy(self, wanted: Sequence[tuple[int, _Found]], file: str) -> None:
        """Images of one pack, in the order in which they lie there: place of the ref, and what is known of it."""
        with self._context.bucket.open(file) as source:
            last, at = (-1, -1), 0
            for place, (_, offset, length, sha256, fetched, etag, modified, resource) in wanted:
                if (offset, length) != last:
                    source.seek(offset)
                    content = source.read(length)
                    os.pwrite(self._file.fileno(), content, self._size)
                    last, at, self._size = (offset, length), self._size, self._size + len(content)
                origin = Origin(sha256, _EPOCH + fetched * _MICROSECOND, etag, modified, resource=resource or b"")
                self._places[place] = (at, length, origin, file)

    def take(self, place: int) -> tuple[bytes, Origin] | None:
        """The image of a ref, once; None for one that is not there, or whose bytes are others than were kept."""
        found = self._places.pop(place, None)
        if found is None:
            return None
        at, length, origin, file = found
        content = os.pread(self._file.fileno(), length, at)
        if hashlib.sha256(content).digest() != origin.sha256:
            _say_damaged(self._context, file, "an image in it has another SHA-256")
            return None
        self.served += 1
        return content, origin

    def __len__(self) -> int:
        return len(self._places)


class ArchiveReader:
    """One process's view of the archive.  folder: for files on their way; it is the caller's to delete."""

    def __init__(self, context: Context, folder: Path) -> None:
        self._context = context
        self._folder = folder
        self._loaded: set[str] = set()
        self._table: sqlite3.Connection | None = None

    def images(self, name: ShipmentName, refs: Sequence[ImageRef]) -> Images | None:
        """Those of refs of a shipment; None where the archive has none of them.  Raises TemporaryError: a full disk."""
        if name.version not in self._loaded:
            self._load(name.version)
        wanted: dict[int, list[tuple[int, _Found]]] = {}
        for place, ref in enumerate(refs):
            found = self._look(name.version, ref) if ref.url and not ref.content else None
            if found is not None:
                wanted.setdefault(found[0], []).append((place, found))
        if not wanted or self._table is None:
            return None
        try:
            images = Images(self._context, self._folder)
            for pack, some in sorted(wanted.items()):
                self._context.safe_point()
                key, batch = self._table.execute("select key, batch from packs where id = ?", (pack,)).fetchone()
                try:
                    images.copy(sorted(some, key=lambda one: one[1][1:3]), key)
                except NotFound:
                    _say_lost(self._context, ArchivedBatch.parse(batch), key)
        except OSError as error:
            raise typed(error, self._folder) from error
        return images

    def _look(self, version: str, ref: ImageRef) -> _Found | None:
        if self._table is None:
            return None
        key = _key(version, ref.partner_id, ref.item_id, ref.url)
        columns = "pack, offset, length, sha256, fetched, etag, modified, resource"
        found: _Found | None = self._table.execute(f"select {columns} from images where ref = ?", (key,)).fetchone()
        return found

    def _load(self, version: str) -> None:
        """Read the indexes of a version."""
        context = self._context
        try:
            for batch, entry in archived(context, context.keys.archive_of(version)):
                context.safe_point()
                body = readable(context, entry.key, Archived)
                if body is not None and body.pack is not None and body.index is not None:
                    self._add(version, batch, body.pack, index_of(context, batch, body.index))
                context.progress("compute", 0, 0)
            if self._table is not None:
                self._table.commit()
        except sqlite3.Error as error:
            raise typed(OSError(str(error)), self._folder) from error
        self._loaded.add(version)

    def _add(self, version: str, batch: ArchivedBatch, pack: DataFile, rows: Sequence[PackRow]) -> None:
        if self._table is None:
            self._table = sqlite3.connect(self._folder / "archive.sqlite", check_same_thread=False)
            self._table.executescript("pragma journal_mode = off; pragma synchronous = off;" + _TABLES)
        number = self._table.execute("insert into packs (key, batch) values (?, ?)", (pack.key, str(batch))).lastrowid
        self._table.executemany(_INSERT, _values(version, number, rows))

    def close(self) -> None:
        """The table is of no use to anybody any more."""
        if self._table is not None:
            self._table.close()
            self._table = None


def index_of(context: Context, batch: ArchivedBatch, file: DataFile) -> list[PackRow]:
    """The rows of an index; none of one that is lost or damaged, which is named once."""
    try:
        return read_index(load_data(context, file), file.key)
    except NotFound:
        _say_lost(context, batch, file.key)
    except (Damaged, FormatError) as error:
        _say_damaged(context, file.key, error.detail)
    return []


def _say_lost(context: Context, batch: ArchivedBatch, key: str) -> None:
    """Unless it was deleted or written anew in good order since its key was read."""
    if batch not in [one for one, _ in archived(context, context.keys.archive_of_batch(batch))]:
        return
    context.once(
        f"archive {key}",
        f"Alert: the archive lost {key}; Hathi fetches its images from their hosts; "
        "restore it from the store's versions or a copy, else nothing is to be done",
    )


def _say_damaged(context: Context, key: str, detail: str) -> None:
    context.once(
        f"archive {key}",
        f"Alert: {key} of the archive is damaged: {detail}; Hathi fetches its images from their hosts; "
        "hathi verify --deep names what else is damaged",
    )


def _key(version: str, partner_id: int, item_id: int, url: str) -> bytes:
    text = f"{version} {partner_id} {item_id} {url}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _values(version: str, pack: int | None, rows: Sequence[PackRow]) -> Iterator[tuple[object, ...]]:
    for row in rows:
        yield (
            _key(version, row.partner_id, row.item_id, row.url),
            pack,
            row.offset,
            row.length,
            row.sha256,
            (row.fetched_at - _EPOCH) // _MICROSECOND,
            row.etag,
            row.last_modified,
            row.resource,
        )
