"""Whether a net's text says what it means: a training leaves out nothing of it, and takes no number that is none."""

from __future__ import annotations

import math
from collections.abc import Iterator

from google.protobuf.message import Message

from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError

_MAY_BE_INFINITE = ("clip_param", "threshold_param")
"""Of a layer: bounds, which may be none."""


def demand_sound(net: caffe_pb2.NetParameter, source: str) -> None:
    """Raises SolverError for a layer with a fault in its text, and for a number that is not finite: by their names.

    source: the file or field of the net, as messages name it.  A net of which one blob is wanted may do without a
    layer; a training takes every layer as it is written, so that a crop_size that cannot be read is not left out.
    """
    layers: list[caffe_pb2.LayerParameter | caffe_pb2.V1LayerParameter] = [*net.layer, *net.layers]
    for layer in layers:
        name = layer.name or "without a name"
        if layer.fault:
            *words, hint = layer.fault.split(" | ")
            raise SolverError(f"{source}: layer '{name}' cannot be read", ": ".join(words), hint)
        for path, value in _numbers(layer):
            if math.isnan(value) or not path.startswith(_MAY_BE_INFINITE):
                says = f"{source}: layer '{name}': {path} is {value}"
                raise SolverError(says, "", "give it a finite number")


def _numbers(message: Message, path: str = "") -> Iterator[tuple[str, float]]:
    """The place and value of each number that is not finite; learned blobs are judged where they are taken."""
    for field, value in message.ListFields():
        if field.name == "blobs":
            continue
        place = f"{path}{field.name}"
        for one in value if field.is_repeated else (value,):
            if isinstance(one, Message):
                yield from _numbers(one, f"{place}.")
            elif isinstance(one, float) and not math.isfinite(one):
                yield place, one
