"""The fetched images of one open batch, in a file of this process alone, on their way into the archive.

What has no room on the local disk is not kept, and is counted: no batch waits or fails for the archive's sake.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Protocol

from pipeline.codec.packs import PackRow
from pipeline.extraction.spill import Origin
from pipeline.fetch.inline import is_data
from pipeline.fetch.sniff import ENOUGH, image_format
from pipeline.records import ImageRef


class Kept(Protocol):
    """Images of a batch that are not to be fetched, since the archive has them."""

    def take(self, place: int) -> tuple[bytes, Origin] | None:
        """The image of the ref at that place of the batch, once; None: there is none, and it is fetched."""


class Room:
    """What the packs of all open batches may take on the local disk together.

    most: bytes.  free: bytes of the disk that stay free.
    """

    def __init__(self, folder: Path, most: int, free: int) -> None:
        self.folder = folder
        self._most = most
        self._free = free
        self._taken = self._packs = 0

    def pack(self) -> Pack:
        """A new, empty one."""
        self._packs += 1
        return Pack(self.folder / f"pack-{self._packs}", self)

    def take(self, size: int) -> bool:
        """Whether so many bytes more have room; they are taken then."""
        if self._taken + size > self._most or shutil.disk_usage(self.folder).free < self._free + size:
            return False
        self._taken += size
        return True

    def give_back(self, size: int) -> None:
        self._taken -= size


class Pack:
    """Images in the order in which they came, equal ones once."""

    def __init__(self, path: Path, room: Room) -> None:
        self.path = path
        self._room = room
        self._fd: int | None = None
        self._at: dict[bytes, int] = {}
        self._hash = hashlib.sha256()
        self.rows: list[PackRow] = []
        self.size = 0
        self.left_out = 0
        """Images that had no room."""

    @property
    def images(self) -> int:
        return len(self._at)

    @property
    def sha256(self) -> str:
        """Hex, of the file."""
        return self._hash.hexdigest()

    def add(self, ref: ImageRef, content: bytes, origin: Origin) -> None:
        """Keep the image of a ref, where there is room; one that its URL holds is there as long as the ref."""
        if is_data(ref.url):
            return
        offset = self._at.get(origin.sha256)
        if offset is None:
            offset = self.size
            if not self._written(content):
                self.left_out += 1
                return
            self._at[origin.sha256] = offset
        kind = image_format(content[:ENOUGH]) or ""
        self.rows.append(
            PackRow(
                ref.partner_id,
                ref.item_id,
                ref.url,
                origin.sha256,
                offset,
                len(content),
                kind,
                origin.fetched_at,
                origin.etag,
                origin.last_modified,
                origin.resource or None,
            )
        )

    def leave_out(self, ref: ImageRef) -> None:
        """The image of this ref is not kept after all, if it is there: its host may give a better one at the next try.

        Its bytes stay in the file, and no row names them.
        """
        wanted = (ref.partner_id, ref.item_id, ref.url)
        gone = [row for row in self.rows if (row.partner_id, row.item_id, row.url) == wanted]
        if gone:
            self.rows = [row for row in self.rows if row not in gone]
            left = {row.sha256 for row in self.rows}
            for row in gone:
                if row.sha256 not in left:
                    self._at.pop(row.sha256, None)

    def _written(self, content: bytes) -> bool:
        """Whether the file has these bytes now; a disk that takes no more gets none of it."""
        try:
            if not self._room.take(len(content)):
                return False
        except OSError:
            return False  # the disk does not even say how full it is: it gets nothing
        try:
            if self._fd is None:
                self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            written = 0
            while written < len(content):
                written += os.pwrite(self._fd, content[written:], self.size + written)
        except OSError:
            self._room.give_back(len(content))
            return False
        self._hash.update(content)
        self.size += len(content)
        return True

    def close(self) -> None:
        """Nothing more comes: the file is whole, and no byte of an image that had no room stands behind the others."""
        if self._fd is not None:
            os.ftruncate(self._fd, self.size)
            os.close(self._fd)
            self._fd = None

    def drop(self) -> None:
        """Forget everything; the file goes."""
        self.close()
        self.path.unlink(missing_ok=True)
        self._room.give_back(self.size)
        self.size = 0
        self.rows.clear()
        self._at.clear()
