"""A .caffemodel's parameter blobs, found without reading them: an index of the file, then each blob on demand.

The file is one protobuf message; only the fields that hold layers' names and blobs are followed, so a file of any
size costs its own blobs and nothing more, and every error has its offset.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.caffe_blobs import RAW_TYPES
from pipeline.errors import NetError
from pipeline.nets.caffe.encodings import name_of

VARINT, _FIXED64, BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_AXES = 32  # Caffe's kMaxBlobAxes
_MAX_LAYERS, _MAX_BLOBS, _MAX_PIECES = 100_000, 1_000, 65_536  # so that a hostile file costs no more than its size


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """Where a blob's values lie in the file.  `legacy`: its shape is the old num, channels, height, width.

    fault: why its values cannot be read; it matters to who needs them.
    """

    shape: tuple[int, ...]
    legacy: bool
    dtype: str
    pieces: tuple[tuple[int, int], ...]
    fault: NetError | None = field(default=None, compare=False)

    @property
    def count(self) -> int:
        return sum(size for _, size in self.pieces) // np.dtype(self.dtype).itemsize

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Caffe's Blob::ShapeEquals: a legacy shape may have leading ones that the new one lacks."""
        if not self.legacy:
            return self.shape == shape
        return len(shape) <= 4 and self.shape == (1,) * (4 - len(shape)) + shape


@dataclass(frozen=True, slots=True)
class StoredLayer:
    name: str
    blobs: tuple[StoredBlob, ...]


@dataclass(frozen=True)
class Caffemodel:
    """The layers of a .caffemodel in the file's order."""

    path: Path
    layers: tuple[StoredLayer, ...]
    identity: tuple[int, ...] = ()

    def read(self, blobs: list[StoredBlob]) -> Iterator[NDArray[np.float32]]:
        """The values of each blob, flat float32, in C order.  Raises NetError when the file changed meanwhile."""
        with opened(self.path) as file:
            self._same(file)
            for blob in blobs:
                if blob.fault is not None:
                    raise blob.fault
                values = np.empty(blob.count, blob.dtype)
                target = values.view(np.uint8).data
                done = 0
                for offset, size in blob.pieces:
                    file.seek(offset)
                    while size:
                        got = file.readinto(target[done : done + size])  # type: ignore[attr-defined]
                        if not got:
                            raise changed(f"the weights {self.path}")
                        done, size = done + got, size - got
                with np.errstate(over="ignore"):  # beyond float32: infinite, which is refused where it is needed
                    yield values.astype(np.float32, copy=False)
            self._same(file)

    def _same(self, file: BinaryIO) -> None:
        if self.identity and _identity(file) != self.identity:
            raise changed(f"the weights {self.path}")


def changed(what: str) -> NetError:
    """The error of a file that is no longer what was loaded: what is computed from now on would be of another net."""
    return NetError(
        f"{what} changed since they were opened",
        "the file was replaced, or is still being copied",
        "wait until it is whole, then start again",
    )


def opened(path: Path, what: str = "weights", kind: str = ".caffemodel") -> BinaryIO:
    """A file to walk over.  Raises NetError where it cannot be read."""
    try:
        return path.open("rb", buffering=1 << 16)
    except OSError as error:
        hint = f"give the path of a {kind}"
        raise NetError(f"the {what} {path} cannot be read", error.strerror or str(error), hint) from error


def _identity(file: BinaryIO) -> tuple[int, ...]:
    stat = os.fstat(file.fileno())
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def read_index(path: Path) -> Caffemodel:
    """Reads where everything is.  Raises NetError: no such file, not a caffemodel, truncated (with the offset)."""
    with opened(path) as file:
        identity = _identity(file)
        file.seek(0, 2)
        walker = Walker(file, file.tell(), path)
        file.seek(0)
        if file.read(4) == b"\x89HDF":
            raise NetError(f"the weights {path} are HDF5", "", "save them as a .caffemodel")
        layers = tuple(walker.layers())
    if not layers:
        raise NetError(
            f"the weights {path} hold no layers", f"{walker.size} bytes", "check that the file is a .caffemodel"
        )
    return Caffemodel(path, layers, identity)


@dataclass
class _Parts:
    """A blob while its fields are read."""

    old: dict[int, int] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None
    floats: list[tuple[int, int]] = field(default_factory=list)
    doubles: list[tuple[int, int]] = field(default_factory=list)
    raw: tuple[int, int] | None = None
    raw_type: int = 0


class Walker:
    """Steps over protobuf fields, each within the bounds of the message that holds it."""

    def __init__(self, file: BinaryIO, size: int, path: Path, what: str = "weights", kind: str = ".caffemodel") -> None:
        self.file, self.size, self.path, self.what, self.kind = file, size, path, what, kind

    def broken(self, offset: int, says: str) -> NetError:
        where = f"at byte {offset} of {self.size}: {says}"
        return NetError(
            f"the {self.what} {self.path} {'are' if self.what == 'weights' else 'is'} truncated or no {self.kind}",
            where,
            "fetch the file again and compare its size or checksum",
        )

    def varint(self, at: int, end: int) -> tuple[int, int]:
        self.file.seek(at)
        head = self.file.read(min(10, end - at))
        value = 0
        for index, byte in enumerate(head):
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value & (2**64 - 1), at + index + 1
        raise self.broken(at, "a number does not end")

    def fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(field number, wire type, first byte, end) of each field; for a varint, first byte is where it begins."""
        while at < end:
            tag, begin = self.varint(at, end)
            number, wire = tag >> 3, tag & 7
            if not number:
                raise self.broken(at, "field number 0")
            if wire == VARINT:
                _, stop = self.varint(begin, end)
            elif wire == _FIXED64:
                stop = begin + 8
            elif wire == _FIXED32:
                stop = begin + 4
            elif wire == BYTES:
                length, begin = self.varint(begin, end)
                stop = begin + length
            else:
                raise self.broken(at, f"wire type {wire}")
            if stop > end:
                raise self.broken(at, f"field {number} ends at byte {stop}, beyond byte {end}")
            yield number, wire, begin, stop
            at = stop

    def text(self, begin: int, end: int) -> str:
        self.file.seek(begin)
        return name_of(self.file.read(min(end - begin, 65536)))

    def layers(self) -> Iterator[StoredLayer]:
        for count, (number, wire, begin, end) in enumerate(self.fields(0, self.size)):
            if count > _MAX_LAYERS:
                raise self.broken(begin, f"more than {_MAX_LAYERS} layers")
            if wire == BYTES and number == 100:
                yield self.layer(begin, end, name=1, blobs=7)
            elif wire == BYTES and number == 2:
                yield self.old_layer(begin, end)

    def old_layer(self, begin: int, end: int) -> StoredLayer:
        for number, wire, first, stop in self.fields(begin, end):
            if number == 1 and wire == BYTES:  # V0: the layer is a message within
                return self.layer(first, stop, name=1, blobs=50)
        return self.layer(begin, end, name=4, blobs=6)

    def layer(self, begin: int, end: int, *, name: int, blobs: int) -> StoredLayer:
        title, found = "", []
        for number, wire, first, stop in self.fields(begin, end):
            if wire == BYTES and number == name:
                title = self.text(first, stop)
            elif wire == BYTES and number == blobs:
                found.append(self.blob(first, stop, title))
            if len(found) > _MAX_BLOBS:
                raise self.broken(first, f"layer '{title}' has more than {_MAX_BLOBS} blobs")
        return StoredLayer(title, tuple(found))

    def blob(self, begin: int, end: int, layer: str) -> StoredBlob:
        parts = _Parts()
        for number, wire, first, stop in self.fields(begin, end):
            if number <= 4 and wire == VARINT:
                parts.old[number] = self.varint(first, stop)[0]
            elif number == 10 and wire == VARINT:
                parts.raw_type = self.varint(first, stop)[0]
            elif number == 12 and wire == BYTES:
                parts.raw = (first, stop - first)
            elif number == 7 and wire == BYTES:
                parts.shape = tuple(self.shape(first, stop))
            elif number == 5 and wire in (BYTES, _FIXED32):
                parts.floats.append((first, stop - first))
            elif number == 8 and wire in (BYTES, _FIXED64):
                parts.doubles.append((first, stop - first))
            if len(parts.floats) + len(parts.doubles) > _MAX_PIECES:
                raise self.broken(first, f"a blob of layer '{layer}' is in more than {_MAX_PIECES} pieces")
        return self.finish(parts, begin, layer)

    def shape(self, begin: int, end: int) -> Iterator[int]:
        axes = 0
        for number, wire, first, stop in self.fields(begin, end):
            if number != 1:
                continue
            at = first
            while at < stop:
                value, at = self.varint(at, stop)
                axes += 1
                if axes > _MAX_AXES:
                    raise self.broken(first, f"a blob of more than {_MAX_AXES} axes")
                yield value
            if wire == VARINT and at != stop:
                raise self.broken(first, "a bad dimension")

    def finish(self, parts: _Parts, at: int, layer: str) -> StoredBlob:
        legacy = bool(parts.old)
        shape = tuple(parts.old.get(axis, 0) for axis in (1, 2, 3, 4)) if legacy else parts.shape or ()
        dtype, pieces = ("<f8", parts.doubles) if parts.doubles else ("<f4", parts.floats)
        fault = None
        if parts.raw is not None and not pieces:
            pieces = [parts.raw]
            dtype = RAW_TYPES.get(parts.raw_type, "")
            if not dtype:
                fault = self.quantised(layer, parts.raw_type)
                return StoredBlob(shape, legacy, "<f4", (), fault)
        total, width = sum(size for _, size in pieces), np.dtype(dtype).itemsize
        if total % width:
            fault = self.broken(at, f"a blob of layer '{layer}' holds {total} bytes of {width}-byte numbers")
        elif math.prod(shape) != total // width:
            sizes = " ".join(map(str, shape))
            fault = self.broken(at, f"a blob of layer '{layer}' has the shape {sizes} but {total // width} values")
        return StoredBlob(shape, legacy, dtype, () if fault else tuple(_joined(pieces)), fault)

    def quantised(self, layer: str, kind: int) -> NetError:
        return NetError(
            f"the weights {self.path} hold whole numbers for layer '{layer}'",
            f"raw_data_type {kind}: the net was quantised by NVIDIA's Caffe",
            "give the weights as they were before, in floats",
        )


def _joined(pieces: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Neighbouring pieces as one.  Unpacked numbers have a tag between them, so those stay apart."""
    last: tuple[int, int] | None = None
    for offset, size in pieces:
        if last and last[0] + last[1] == offset:
            last = (last[0], last[1] + size)
            continue
        if last:
            yield last
        last = (offset, size)
    if last:
        yield last
