"""Mean images as Caffe's tools write them: .binaryproto (one BlobProto) and .npy."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, NetError

_MAX_BYTES = 256 * 2**20
_NPY = re.compile(
    rb"\{'descr': '(?P<kind>[<>|=](?:f[248]|[iu][1248]))', 'fortran_order': (?P<fortran>True|False), "
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
        raise ConfigError(
            f"the mean {path} cannot be read",
            error.strerror or str(error),
            "give the path of a .npy or .binaryproto file",
        ) from error
    try:
        values = _npy(content) if content.startswith(b"\x93NUMPY") else _binaryproto(content)
    except (ValueError, NetError) as error:
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
        raise ValueError("its header does not describe an array of numbers")
    shape = tuple(int(size) for size in header["shape"].replace(b",", b" ").split())
    kind = np.dtype(header["kind"].decode())
    if math.prod(shape) * kind.itemsize != len(content) - begin - length:
        raise ValueError(f"{len(content) - begin - length} bytes of values for the shape {shape} of {kind}")
    values = np.frombuffer(content, kind, offset=begin + length)
    with np.errstate(over="ignore"):  # beyond float32: infinite, which is refused
        return values.reshape(shape, order="F" if header["fortran"] == b"True" else "C").astype(np.float32)


def _binaryproto(content: bytes) -> NDArray[np.float32]:
    """A BlobProto: its shape in four fields, as Caffe wrote it first, or in a message."""
    from google.protobuf.message import DecodeError  # who has no such file does without protobuf

    from pipeline.codec import caffe_blobs, caffe_pb2

    try:
        blob = caffe_pb2.BlobProto.FromString(content)
    except DecodeError as error:
        raise ValueError("it is not a BlobProto") from error
    old = ("num", "channels", "height", "width")
    if blob.HasField("shape"):
        sizes = tuple(blob.shape.dim)
    elif any(map(blob.HasField, old)):
        sizes = tuple(getattr(blob, name) if blob.HasField(name) else 1 for name in old)
    else:
        raise ValueError("it gives no shape")
    with np.errstate(over="ignore"):
        values = caffe_blobs.values_of(blob)
    if not values.size or min(sizes, default=1) < 0 or math.prod(sizes) != values.size:
        raise ValueError(f"{values.size} values for the shape {sizes}")
    return values.reshape(sizes)
