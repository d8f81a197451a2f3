"""The numbers of a blob that was parsed whole: one that stands in a .prototxt, or is a file of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError

RAW_TYPES: dict[int, str] = {caffe_pb2.DOUBLE: "<f8", caffe_pb2.FLOAT: "<f4", caffe_pb2.FLOAT16: "<f2"}
"""NVIDIA's raw_data_type -> how raw_data is read; its whole numbers (INT, UINT) are of nets that are quantised."""


def values_of(blob: caffe_pb2.BlobProto) -> NDArray[np.float32]:
    """The values of a blob that was parsed whole, flat.  Raises NetError for bytes of a kind that is not known."""
    if blob.HasField("raw_data"):
        kind = RAW_TYPES.get(blob.raw_data_type)
        if kind is None or len(blob.raw_data) % np.dtype(kind).itemsize:
            raise NetError("a blob's raw_data is damaged", f"{len(blob.raw_data)} bytes of type {blob.raw_data_type}")
        with np.errstate(over="ignore"):
            return np.frombuffer(blob.raw_data, kind).astype(np.float32)
    return np.array(blob.double_data if blob.double_data else blob.data, np.float32)
