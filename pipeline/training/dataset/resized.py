"""Images of a dataset in one size, decoded and resized as they are when a net serves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from pipeline.codec import caffe_pb2
from pipeline.images.decoding import read
from pipeline.images.resizing import resize
from pipeline.records import Failure
from pipeline.training.dataset.examples import Example

_MOST_PIXELS = 100_000_000


def resized(examples: Iterable[Example], size: tuple[int, int], channels: int = 3) -> Iterator[Example]:
    """size: (height, width).  channels: 3 in colour, 1 in grey.  Raises FormatError for an image that is unusable."""
    for example in examples:
        if example.datum.encoded:
            found = read(example.datum.data, _MOST_PIXELS, None, grey=channels == 1)
            if isinstance(found, Failure):
                raise example.unusable(f"{found.reason} {found.detail}".rstrip())
            pixels = found.pixels
        else:
            planes = example.image()
            if planes.dtype != np.uint8 or len(planes) not in (1, 3):
                raise example.unusable(f"{len(planes)} channels of {planes.dtype} are no picture")
            pixels = np.ascontiguousarray(np.broadcast_to(planes, (3, *planes.shape[1:])).transpose(1, 2, 0))
        if channels == 1:
            pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)
        planes = np.array(cv2.split(resize(pixels, size)), np.uint8)
        datum = caffe_pb2.Datum(
            channels=channels, height=size[0], width=size[1], data=planes.tobytes(), label=example.datum.label
        )
        yield Example(example.key, datum)
