"""Datums that hold small images as they are, read a whole batch at a time.

Read one by one, a batch of them costs more in Python than in copying, and the thread that trains stands still for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.nets.graph.lowered import Shape

SMALL = 1 << 16
"""Values of an image.  Larger ones are better read one by one, while their pixels are in the processor's cache."""


class Raw:
    """The Datums of a database whose images are uint8 and of one shape, (channels, height, width)."""

    def __init__(self, shape: Shape) -> None:
        self._shape, size = shape, shape[0] * shape[1] * shape[2]
        one = caffe_pb2.Datum(channels=shape[0], height=shape[1], width=shape[2], data=bytes(size)).SerializeToString()
        self._head, self._end = one[: len(one) - size], len(one)

    def stacked(self, values: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """(n, channels, height, width) and (n,) of these records; None: one of them is written in another way."""
        begin, end = len(self._head), self._end
        if min(map(len, values)) < end or {value[:begin] for value in values} != {self._head}:
            return None
        labels = [_label(value[end:]) for value in values]
        if None in labels:
            return None
        pixels = np.frombuffer(b"".join([value[begin:end] for value in values]), np.uint8)
        return pixels.reshape(len(values), *self._shape), np.array(labels, np.float32)


@lru_cache(1 << 14)
def _label(rest: bytes) -> int | None:
    """The label in what stands behind the pixels of a record; None: it holds something else that counts."""
    try:
        datum = caffe_pb2.Datum.FromString(rest)
    except DecodeError:
        return None
    says = {field.name for field, _ in datum.ListFields()}
    return datum.label if says <= {"label", "encoded"} and not datum.encoded else None
