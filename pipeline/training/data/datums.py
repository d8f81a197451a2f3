"""A Datum, the record of Caffe's databases: its bytes, and the image in it."""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.training.data import pixels
from pipeline.training.data.transform import Unfit


def parse(value: bytes | memoryview) -> caffe_pb2.Datum:
    """Raises Unfit."""
    try:
        return caffe_pb2.Datum.FromString(value)  # type: ignore[arg-type]  # it takes what lies in the map as well
    except DecodeError as error:
        raise Unfit("its bytes are no Datum") from error


def image(datum: caffe_pb2.Datum, colour: bool | None = None) -> NDArray[Any]:
    """(channels, height, width), uint8 or float32.  colour: how an encoded one is decoded.  Raises Unfit."""
    if datum.encoded:
        try:
            return pixels.decode(datum.data, colour)
        except pixels.Undecodable as error:
            raise Unfit(str(error)) from error
    shape = (datum.channels, datum.height, datum.width)
    values = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float32)
    if min(shape) < 1 or values.size != shape[0] * shape[1] * shape[2]:
        raise Unfit(f"it says {shape[0]} x {shape[1]} x {shape[2]} and holds {values.size} values")
    return values.reshape(shape)
