"""Writes a .caffemodel, byte for byte as Caffe's own `Net::ToProto` would, one blob in memory at a time.

A protobuf message says how long it is before it begins.  The shapes of all blobs are known first, so every length is,
too: the file is written from front to back, and values are asked for when their place is reached.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError
from pipeline.nets.caffe.branches import FROM_BRANCHES

LARGEST = 2**31 - 1
"""Bytes of a protobuf message, and so of a .caffemodel: Caffe and every other reader stop there."""
_NAME, _DATA, _DIFF, _BLOBS, _SHAPE, _LAYER = 1, 5, 6, 7, 7, 100  # numbers of fields in proto/caffe.proto
_PIECE = 1 << 23
"""Bytes that are written and hashed while they are in the processor's cache."""
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Written:
    """A file as it went to the disk.  size: its bytes."""

    size: int
    sha256: str


class Hashed:
    """Writes to a file and hashes it on the way, without reading it again; the disk takes each piece meanwhile."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._sha, self._size = file, hashlib.sha256(), 0

    def write(self, content: bytes | memoryview) -> None:
        whole = memoryview(content).cast("B")
        for begin in range(0, len(whole), _PIECE):
            piece = whole[begin : begin + _PIECE]
            self._file.write(piece)
            self._sha.update(piece)
            if len(piece) == _PIECE:
                os.posix_fadvise(self._file.fileno(), self._size, _PIECE, os.POSIX_FADV_DONTNEED)
            self._size += len(piece)

    def written(self) -> Written:
        """What was written so far."""
        return Written(self._size, self._sha.hexdigest())


@dataclass(frozen=True, slots=True)
class LayerToWrite:
    """spec: what the file says of the layer beside its blobs.  shapes: of its blobs."""

    spec: caffe_pb2.LayerParameter
    shapes: tuple[tuple[int, ...], ...] = ()


def write(
    path: Path, name: str, layers: Sequence[LayerToWrite], values: Iterable[Array], *, diffs: bool = False
) -> Written:
    """Puts the net at `path`, whole or not at all; a file that is there is replaced.

    values: of all blobs, float32, in the order of layers and of each layer's blobs; each is let go before the next one
    is asked for.  diffs: behind each blob's values come those of its `diff`.
    Raises NetError for a net of more than LARGEST bytes, before any value is asked for, for values that do not fit
    their blobs, and where the file cannot be written.
    """
    parts = [_parts(layer, diffs) for layer in layers]
    head = field(_NAME, name.encode()) if name else b""
    size = len(head) + sum(length(_LAYER, part.length) for part in parts)
    if size > LARGEST:
        raise NetError(
            f"the net is too large for a .caffemodel: {path}",
            f"{size} bytes; a protobuf message, which the file is, holds at most {LARGEST}",
            "give the net fewer parameters, or share them between layers",
        )
    try:
        with replacing(path) as opened:
            file = Hashed(opened)
            file.write(head)
            _fill(file, parts, iter(values))
    except OSError as error:
        hint = "free some space, or name another folder"
        raise NetError(f"the weights {path} cannot be written", error.strerror or str(error), hint) from error
    return file.written()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file, which gets the name once it is whole and on the disk; nothing is left of one that is not."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True)
class _Parts:
    """A layer's fields before its blobs, its blobs' shapes, and its fields after them."""

    before: bytes
    shapes: tuple[tuple[int, ...], ...]
    after: bytes
    diffs: bool

    @property
    def length(self) -> int:
        blobs = sum(length(_BLOBS, length_of_blob(shape, self.diffs)) for shape in self.shapes)
        return len(self.before) + blobs + len(self.after)


def _parts(layer: LayerToWrite, diffs: bool) -> _Parts:
    before, after = caffe_pb2.LayerParameter(), caffe_pb2.LayerParameter()
    for half, kept in ((before, range(_BLOBS)), (after, range(_BLOBS + 1, FROM_BRANCHES))):
        half.CopyFrom(layer.spec)
        _keep(half, kept)
    return _Parts(
        before.SerializeToString(deterministic=True), layer.shapes, after.SerializeToString(deterministic=True), diffs
    )


def _keep(message: Message, numbers: range) -> None:
    """Leaves the fields of these numbers; of messages within, all that are Caffe's own."""
    for field, value in message.ListFields():
        if field.number not in numbers:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for one in value if field.is_repeated else [value]:
                _keep(one, range(FROM_BRANCHES))


def _fill(file: Hashed, parts: Sequence[_Parts], values: Iterator[Array]) -> None:
    for part in parts:
        file.write(begun(_LAYER, part.length) + part.before)
        for shape in part.shapes:
            file.write(begun(_BLOBS, length_of_blob(shape, part.diffs)))
            fill_blob(file, shape, values, part.diffs)
        file.write(part.after)
    if next(values, None) is not None:
        raise NetError("there are values for more blobs than the net has")


def fill_blob(file: Hashed, shape: tuple[int, ...], values: Iterator[Array], diff: bool = False) -> None:
    """A BlobProto, without what begins a field: its values, its `diff` where it has one, its shape."""
    for number in (_DATA, _DIFF)[: 1 + diff]:
        one = next(values, None)
        if one is None or one.size != math.prod(shape) or one.dtype != np.float32:
            has = "none" if one is None else f"{one.size} {one.dtype}"
            raise NetError("the values do not fit the net's blobs", f"a blob of shape {shape} float32; {has} are given")
        if one.size:
            file.write(begun(number, one.size * 4))
            file.write(np.ascontiguousarray(one, "<f4").data)
    file.write(_shape(shape))


def length_of_blob(shape: tuple[int, ...], diff: bool = False) -> int:
    size = 4 * math.prod(shape)
    return (1 + diff) * (length(_DATA, size) if size else 0) + len(_shape(shape))


def _shape(shape: tuple[int, ...]) -> bytes:
    """Caffe writes none for a blob without axes."""
    return field(_SHAPE, caffe_pb2.BlobShape(dim=shape).SerializeToString()) if shape else b""


def field(number: int, content: bytes) -> bytes:
    return begun(number, len(content)) + content


def begun(number: int, size: int) -> bytes:
    """The beginning of a field of so many bytes."""
    return varint(number << 3 | 2) + varint(size)


def length(number: int, size: int) -> int:
    """The bytes of such a field, whole."""
    return len(begun(number, size)) + size


def varint(value: int) -> bytes:
    """A number as protobuf writes it; a negative one is a 64-bit number to protobuf."""
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))
