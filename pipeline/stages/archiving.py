"""Images into the archive: a pack and its index for each batch, then the key that names them (docs/protocol.md 17).

The key is put before the batch's result: it is true by itself, since the images were fetched.  Where another attempt
was first, its images stand and ours are deleted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from pipeline.amounts import counted
from pipeline.codec.packs import write_index
from pipeline.extraction.packing import Pack, Room
from pipeline.ledger.archive import Archived
from pipeline.ledger.layout import ArchivedBatch, ShipmentName
from pipeline.ledger.manifest import DataFile
from pipeline.ledger.protocol import Context, commit, scratch
from pipeline.records import ImageRef
from pipeline.stages.archived_images import ArchiveReader, Images


class Archive:
    """The archive as this run of a stage asks and fills it; its files on the local disk go with `held`."""

    def __init__(self, context: Context, held: contextlib.ExitStack) -> None:
        self._context = context
        self._held = held
        self._reader: ArchiveReader | None = None
        self._room: Room | None = None

    def images(self, name: ShipmentName, refs: Sequence[ImageRef], wanted: bool) -> Images | None:
        """Those that are not to be fetched.  wanted: as the plan says; a setting can want them of every plan."""
        if not (wanted or self._context.settings.archive.read):
            return None
        if self._reader is None:
            self._reader = ArchiveReader(self._context, self._folder())
            self._held.callback(self._reader.close)
        return self._reader.images(name, refs)

    def pack(self) -> Pack | None:
        """For those that are fetched, where they are to be kept."""
        settings = self._context.settings
        if not settings.archive.enabled:
            return None
        if self._room is None:
            self._room = Room(self._folder(), settings.compute.spill_bytes, settings.compute.free_bytes)
        return self._room.pack()

    def _folder(self) -> Path:
        return self._held.enter_context(scratch(self._context))


def keep(context: Context, batch: ArchivedBatch, pack: Pack | None) -> int:
    """Put the fetched images of a batch there; of how many refs they are.  The pack is closed, and its files stay."""
    if pack is None:
        return 0
    if pack.left_out:
        context.once(
            "archive room",
            f"{counted(pack.left_out, 'image')} of batch {batch.batch} of {batch.name} "
            "had no room on the local disk on the way to the archive, and Hathi does not keep them; "
            "raise compute.spill_bytes, or give state more room",
        )
    pack.close()
    if not pack.rows:
        return 0
    body = store(context, batch, pack)
    _, stands = commit(context, context.keys.archived(batch), body)
    named = {file.key for file in stands.files}
    for file in body.files:
        if file.key not in named:
            context.bucket.delete(file.key)
    return stands.index.rows if stands.index is not None else 0


def store(context: Context, batch: ArchivedBatch, pack: Pack) -> Archived:
    """The files, and the body that names them."""
    nonce = context.process.nonce()
    key = context.keys.archive_file(batch, nonce, "pack")
    context.bucket.put(key, pack.path)
    images = DataFile(key=key, size=pack.size, sha256=pack.sha256, rows=pack.images)
    path = pack.path.with_name(f"{pack.path.name}.index")
    path.unlink(missing_ok=True)
    written = write_index(path, pack.rows)
    key = context.keys.archive_file(batch, nonce, "index.parquet")
    context.bucket.put(key, path)
    path.unlink()
    index = DataFile(key=key, size=written.size, sha256=written.sha256, rows=written.rows)
    return Archived(pack=images, index=index)
