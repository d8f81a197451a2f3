"""The mean image of a dataset, as Caffe's compute_image_mean computes it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import FormatError
from pipeline.training.dataset.examples import Example


def mean_image(examples: Iterable[Example]) -> NDArray[np.float32]:
    """(channels, height, width), float32: sums of float32 in the order of the examples, divided once at the end.

    Raises FormatError for a dataset without examples, and for an image of another size than the first.
    """
    total: NDArray[np.float32] | None = None
    count = 0
    for example in examples:
        image = example.image()
        if total is None:
            total = np.zeros(image.shape, np.float32)
        if image.shape != total.shape:
            has, first = (" x ".join(map(str, shape)) for shape in (image.shape, total.shape))
            raise example.unusable(f"it is {has} where the first image is {first}")
        total += image
        count += 1
    if total is None:
        raise FormatError("a mean image needs examples", "the dataset is empty", "bring images in first")
    return total / np.float32(count)


def as_binaryproto(mean: NDArray[np.float32]) -> bytes:
    """The file that Caffe's transform_param.mean_file names."""
    channels, height, width = mean.shape
    blob = caffe_pb2.BlobProto(num=1, channels=channels, height=height, width=width, data=mean.ravel().tolist())
    return blob.SerializeToString()
