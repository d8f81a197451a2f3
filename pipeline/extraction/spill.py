"""The finished features of one open batch: in memory, and in a file of its own where they would be too much there.

A batch waits for its slowest URL while others finish, so what is finished has to lie somewhere.  The file is appended
to and belongs to this process alone: blocks of a header, float32 vectors and the records of rows, nothing else.  Of a
set that keeps images (dim 0) an image stands in the place of each vector, its length before it; they are read where
they lie, so that a batch of them is never in memory as a whole.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from pipeline.codec.shards import FeatureRow, Matrix, Reused
from pipeline.errors import TemporaryError
from pipeline.records import ImageRef
from pipeline.stores.local import typed

ROW_BYTES = 400
"""What a finished row takes in memory beside its vector, on the safe side."""

_IMAGE_BYTES = 64 * 2**10
"""What an image takes, about, until it is there."""

_BLOCK = struct.Struct("<QQQQ")
"""Vectors, rows, bytes of the vectors, bytes of the rows."""
_LENGTH = struct.Struct("<Q")
_ROW = struct.Struct("<QQq32s32siiii")
"""Place in the batch, slot, microseconds since 1970, SHA-256 of image and resource, and four lengths: -1 for a text
that is absent."""
_NO_RESOURCE = bytes(32)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Origin(NamedTuple):
    """Where the bytes of an image came from: what a feature's row says beyond its ref.  fetched_at: UTC."""

    sha256: bytes
    fetched_at: datetime
    etag: str | None
    last_modified: str | None
    damage: str | None = None
    """What the decoder said was wrong with the image, which has a feature all the same."""
    reused: Reused | None = None
    """That its feature was computed before, and how that is known."""
    resource: bytes = b""
    """SHA-256 of the URL after all redirects, 32 bytes; empty for what was not fetched."""


class _Row(NamedTuple):
    place: int
    slot: int
    origin: Origin


def promise_of(dim: int) -> int:
    """Bytes that a finished row may come to take."""
    return ROW_BYTES + (4 * dim or _IMAGE_BYTES)


class Features:
    """Vectors by slot, in the order in which they came; each row names its ref's place in the batch and its slot.

    Rows of equal bytes share a slot.  path: the file for what is spilled; it appears with the first spill.
    The disk's refusals are raised as typed errors: a full disk is a TemporaryError.
    """

    def __init__(self, dim: int, path: Path | None) -> None:
        self._dim = dim
        self._path = path
        self._vectors: list[Matrix | bytes] = []
        self._bytes_of_vectors = 0
        self._rows: list[_Row] = []
        self._slots = 0
        self._made = False
        self.spilled = 0
        """Bytes in the file."""

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return self._bytes_of_vectors + ROW_BYTES * len(self._rows)

    def add(self, vector: Matrix | bytes) -> int:
        """Keep an image, or a copy of a vector (dim,): a view would hold the whole stack that it came in.  Its slot."""
        kept = vector if isinstance(vector, bytes) else np.array(vector, np.float32)
        self._vectors.append(kept)
        self._bytes_of_vectors += len(kept) if isinstance(kept, bytes) else kept.nbytes
        self._slots += 1
        return self._slots - 1

    def name(self, place: int, slot: int, origin: Origin) -> None:
        """The ref at that place of the batch has the vector in that slot."""
        self._rows.append(_Row(place, slot, origin))

    def spill(self) -> None:
        """Move all that is in memory to the file."""
        if self._path is None or not (self._rows or self._vectors):
            return
        rows = b"".join(map(_packed, self._rows))
        size = self._bytes_of_vectors + (0 if self._dim else _LENGTH.size * len(self._vectors))
        self._made = True
        try:
            with open(self._path, "ab", opener=_private) as file:
                file.write(_BLOCK.pack(len(self._vectors), len(self._rows), size, len(rows)))
                for vector in self._vectors:
                    if isinstance(vector, bytes):
                        file.write(_LENGTH.pack(len(vector)))
                        file.write(vector)
                    else:
                        file.write(vector.data)
                file.write(rows)
        except OSError as error:
            raise typed(error, self._path) from error
        self.spilled += _BLOCK.size + size + len(rows)
        self._vectors.clear()
        self._bytes_of_vectors = 0
        self._rows.clear()

    def take(self, refs: Sequence[ImageRef]) -> tuple[list[FeatureRow], Matrix]:
        """All rows of the batch whose refs these are, and the matrix (rows, dim); nothing is left here.

        Images that were spilled are views of the file, which is on the disk until the last of them is gone.
        """
        if not self._dim:
            return self._take_images(refs)
        vectors = np.empty((self._slots, self._dim), np.float32)
        rows: list[_Row] = []
        filled = 0
        if self.spilled and self._path is not None:
            try:
                with self._path.open("rb") as file:
                    filled = self._read(file, vectors, rows)
            except OSError as error:
                raise typed(error, self._path) from error
        for vector in self._vectors:
            vectors[filled] = vector
            filled += 1
        rows += self._rows
        self.drop()
        slots = [row.slot for row in rows]
        matrix = vectors if slots == list(range(len(vectors))) else vectors[slots]
        return [_feature_row(refs[row.place], row.origin) for row in rows], matrix

    def _take_images(self, refs: Sequence[ImageRef]) -> tuple[list[FeatureRow], Matrix]:
        rows: list[_Row] = []
        images: list[bytes | memoryview] = []
        if self.spilled and self._path is not None:
            try:
                with self._path.open("rb") as file:
                    if os.fstat(file.fileno()).st_size < self.spilled:
                        raise self._short()
                    view = memoryview(mmap.mmap(file.fileno(), self.spilled, prot=mmap.PROT_READ))
            except OSError as error:
                raise typed(error, self._path) from error
            self._map(view, images, rows)
        images += [image for image in self._vectors if isinstance(image, bytes)]
        rows += self._rows
        self.drop()
        made = [_feature_row(refs[row.place], row.origin, images[row.slot]) for row in rows]
        return made, np.empty((len(made), 0), np.float32)

    def _map(self, view: memoryview, images: list[bytes | memoryview], rows: list[_Row]) -> None:
        """What the file's blocks hold, where it lies."""
        at = 0
        while at < len(view):
            some, _, size, length = _BLOCK.unpack_from(view, at)
            at += _BLOCK.size
            end = at + size
            for _ in range(some):
                (image,) = _LENGTH.unpack_from(view, at)
                at += _LENGTH.size
                images.append(view[at : at + image])
                at += image
            rows += _unpacked(bytes(view[end : end + length]))
            at = end + length

    def _read(self, file: BinaryIO, vectors: Matrix, rows: list[_Row]) -> int:
        """The file's blocks; how many vectors they held."""
        filled, left = 0, self.spilled
        while left > 0:
            some, _, size, length = _BLOCK.unpack(self._bytes(file, _BLOCK.size))
            block = vectors[filled : filled + some].data.cast("B") if some else memoryview(b"")
            if some and file.readinto(block) != len(block):  # type: ignore[attr-defined]
                raise self._short()
            rows += _unpacked(self._bytes(file, length))
            filled += some
            left -= _BLOCK.size + size + length
        return filled

    def _bytes(self, file: BinaryIO, length: int) -> bytes:
        content = file.read(length)
        if len(content) != length:
            raise self._short()
        return content

    def _short(self) -> TemporaryError:
        return TemporaryError(
            "finished features on the local disk are lost",
            f"{self._path} is shorter than it was when it was written",
            "Hathi computes the batch again",
        )

    def drop(self) -> None:
        """Forget everything; the file goes."""
        self._vectors.clear()
        self._bytes_of_vectors = 0
        self._rows.clear()
        self._slots = 0
        if self._made and self._path is not None:
            self._path.unlink(missing_ok=True)
            self._made, self.spilled = False, 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _feature_row(ref: ImageRef, origin: Origin, image: bytes | memoryview | None = None) -> FeatureRow:
    return FeatureRow(
        partner_id=ref.partner_id,
        item_id=ref.item_id,
        ordinal=ref.ordinal,
        external_id=ref.external_id,
        url=ref.url,
        content_sha256=origin.sha256,
        fetched_at=origin.fetched_at,
        etag=origin.etag,
        last_modified=origin.last_modified,
        damage=origin.damage,
        reused=origin.reused,
        image=image,
        resource=origin.resource,
    )


def _packed(row: _Row) -> bytes:
    origin = row.origin
    said = (origin.etag, origin.last_modified, origin.damage, origin.reused)
    texts = [None if text is None else text.encode("utf-8", "surrogatepass") for text in said]
    lengths = [-1 if text is None else len(text) for text in texts]
    when = (origin.fetched_at - _EPOCH) // _MICROSECOND
    head = _ROW.pack(row.place, row.slot, when, origin.sha256, origin.resource or _NO_RESOURCE, *lengths)
    return b"".join([head, *(text or b"" for text in texts)])


def _unpacked(packed: bytes) -> Iterator[_Row]:
    at = 0
    while at < len(packed):
        place, slot, when, sha256, resource, *lengths = _ROW.unpack_from(packed, at)
        at += _ROW.size
        texts: list[str | None] = []
        for length in lengths:
            texts.append(None if length < 0 else packed[at : at + length].decode("utf-8", "surrogatepass"))
            at += max(0, length)
        etag, last_modified, damage, reused = texts
        at_url = b"" if resource == _NO_RESOURCE else resource
        fetched_at = _EPOCH + when * _MICROSECOND
        yield _Row(place, slot, Origin(sha256, fetched_at, etag, last_modified, damage, cast(Any, reused), at_url))
