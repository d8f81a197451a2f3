"""Images of a dataset in one size, decoded and resized as they are when a net serves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from pipeline.codec import caffe_pb2
from pipeline.images import decode
from pipeline.images.resizing import resize
from pipeline.records import Failure
from pipeline.training.dataset.examples import Example


def resized(examples: Iterable[Example], size: tuple[int, int]) -> Iterator[Example]:
    """size: (height, width).  Colour, three channels.  Raises FormatError for an image that cannot be used."""
    for example in examples:
        if example.datum.encoded:
            pixels = decode(example.datum.data)
            if isinstance(pixels, Failure):
                raise example.unusable(f"{pixels.reason} {pixels.detail}".rstrip())
        else:
            planes = example.image()
            if planes.dtype != np.uint8 or len(planes) not in (1, 3):
                raise example.unusable(f"{len(planes)} channels of {planes.dtype} are no picture")
            pixels = np.ascontiguousarray(np.broadcast_to(planes, (3, *planes.shape[1:])).transpose(1, 2, 0))
        done = resize(pixels, size)
        datum = caffe_pb2.Datum(
            channels=3, height=size[0], width=size[1], data=done.transpose(2, 0, 1).tobytes(), label=example.datum.label
        )
        yield Example(example.key, datum)
