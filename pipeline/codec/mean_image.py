"""Mean images as Caffe's tools write them: .binaryproto (one BlobProto) and .npy."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError

_MAX_BYTES = 256 * 2**20
_RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}
_NPY = re.compile(
    rb"\{'descr': '(?P<kind>[<>|=][fiu][1248])', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,9}, ?)*(?:\d{1,9})?)\),? *\} *\n?"
)


def read_mean(path: str | Path) -> NDArray[np.float32]:
    """The mean, (channels,) or (channels, height, width), float32.  Raises ConfigError for a file that holds none."""
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"the mean {path} is too large", f"{path.stat().st_size} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the mean {path} cannot be read", error.strerror or str(error), "give its path") from error
    try:
        values = _npy(content) if content.startswith(b"\x93NUMPY") else _binaryproto(content)
    except ValueError as error:
        raise ConfigError(f"the mean {path} is neither .npy nor .binaryproto", str(error)) from error
    while values.ndim > 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim not in (1, 3) or not np.isfinite(values).all():
        raise ConfigError(f"the mean {path} does not fit", f"its shape is {values.shape}", "channels, height, width")
    return np.ascontiguousarray(values, np.float32)


def _npy(content: bytes) -> NDArray[np.float32]:
    """A .npy file of plain numbers (numpy's format, versions 1 to 3): its header is matched, never evaluated."""
    begin, width = (10, 2) if content[6:7] == b"\1" else (12, 4)
    length = int.from_bytes(content[8 : 8 + width], "little")
    header = _NPY.fullmatch(content[begin : begin + min(length, 4096)])
    if header is None:
        raise ValueError("its header is not that of an array of numbers")
    shape = tuple(int(size) for size in header["shape"].replace(b",", b" ").split())
    kind = np.dtype(header["kind"].decode())
    if math.prod(shape) * kind.itemsize != len(content) - begin - length:
        raise ValueError(f"{len(content) - begin - length} bytes of values for the shape {shape} of {kind}")
    values = np.frombuffer(content, kind, offset=begin + length)
    with np.errstate(over="ignore"):  # beyond float32: infinite, which is refused
        return values.reshape(shape, order="F" if header["fortran"] == b"True" else "C").astype(np.float32)


def _binaryproto(content: bytes) -> NDArray[np.float32]:
    """BlobProto: 1 to 4 num, channels, height, width; 5 floats; 7 shape; 8 doubles (Caffe's published numbers).

    10, 12: the width of what NVIDIA's Caffe writes as bytes, and those bytes.
    """
    old: dict[int, int] = {}
    kind, raw = 0, b""
    shape: tuple[int, ...] | None = None
    pieces: dict[int, list[bytes]] = {5: [], 8: []}
    for number, value in _fields(content):
        if number <= 4 and isinstance(value, int):
            old[number] = value
        elif number == 10 and isinstance(value, int):
            kind = value
        elif number == 12 and isinstance(value, bytes):
            raw = value
        elif number in pieces and isinstance(value, bytes):
            pieces[number].append(value)
        elif number == 7 and isinstance(value, bytes):
            shape = tuple(size for field, sizes in _fields(value) if field == 1 for size in _numbers(sizes))
    doubles = b"".join(pieces[8])
    floats = b"".join(pieces[5])
    if raw and not doubles and not floats:
        if kind not in _RAW_TYPES:
            raise ValueError(f"its raw_data is of type {kind}, which is no float")
        values = np.frombuffer(raw, _RAW_TYPES[kind])
    else:
        values = np.frombuffer(doubles or floats, "<f8" if doubles else "<f4")
    sizes = shape if shape is not None else tuple(old.get(axis, 1) for axis in (1, 2, 3, 4))
    if shape is None and not old:
        raise ValueError("it gives no shape")
    if not values.size or math.prod(sizes) != values.size:
        raise ValueError(f"{values.size} values for the shape {sizes}")
    with np.errstate(over="ignore"):
        return values.reshape(sizes).astype(np.float32)


def _numbers(value: int | bytes) -> Iterator[int]:
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        yield number


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(content, at)
            yield number, value
            continue
        if wire not in (1, 2, 5) or not number:
            raise ValueError(f"no protobuf field at byte {at}")
        length, at = _varint(content, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
        if at + length > len(content):
            raise ValueError(f"it ends within a field at byte {at}")
        yield number, content[at : at + length]
        at += length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(content[at : at + 10]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, at + index + 1
    raise ValueError(f"a number at byte {at} does not end")
