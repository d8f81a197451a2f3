"""What the layers that crop and mirror images have in common: their seeds, their words, and what an image must be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.nets.graph.lowered import Shape
from pipeline.training.data.source import Labels, Trouble
from pipeline.training.data.transform import Transform, Unfit
from pipeline.training.draws.draws import Draws
from pipeline.training.draws.words import Stream, Uint32s


class Cropped:
    """A transformation and the words that it draws.

    Caffe seeds a transformer as the layer begins and once more before its thread starts; the second one is drawn from.
    What a layer draws in between is drawn between the constructor and `settle`.
    """

    def __init__(self, layer: str, transform: Transform, draws: Draws) -> None:
        self.transform, self._layer, self._draws = transform, layer, draws
        self._stream: Stream | None = None
        if transform.words:
            draws.word(layer)

    def settle(self) -> None:
        """Takes the seed of the crops, and the one that Caffe gives to the layer's thread."""
        if self.transform.words:
            self._stream = self._draws.stream(self._draws.word(self._layer))
        self._draws.word(self._layer)

    def words(self, first: int, count: int) -> Uint32s:
        """(count, words of an image): of the examples from this one on, counted from the beginning of the training."""
        each = self.transform.words
        if self._stream is None:
            return np.empty((count, 0), np.uint32)
        return self._stream.words(first * each, count * each).reshape(count, each)

    def put(self, image: NDArray[Any], words: Uint32s, out: NDArray[np.float32]) -> None:
        """Transforms one image into its place of a batch.  Raises Unfit."""
        shape = self.transform.shape(image.shape)
        if shape != out.shape:
            raise Unfit(differs(shape, out.shape))
        self.transform.apply(image, words, out)


@dataclass(frozen=True)
class Sizes:
    """What each image of a layer's batches has to be.  first: the first one.  shape: the same, where -1 is any size.

    seen: what the examples that were examined are.
    """

    first: Shape
    shape: Shape
    seen: set[Shape] = field(default_factory=set)

    @property
    def vary(self) -> bool:
        return -1 in self.shape


def sizes_of(batch: Shape, fixed: bool) -> Sizes:
    """Caffe gives a batch the shape of its first image.  fixed: images are cropped or resized."""
    return Sizes(batch[1:], (batch[1], -1, -1) if batch[0] == 1 and not fixed else batch[1:])


def differs(shape: Shape, expected: Shape) -> str:
    has, first = (" x ".join(map(str, one)) for one in (shape, expected))
    remedy = "images of different sizes need a crop_size, or a batch_size of 1"
    return f"it is {has} where the first image is {first}; {remedy}"


def examined(
    key: str, transform: Transform, image: NDArray[Any], expected: Sizes, label: float, wanted: Labels | None
) -> Iterator[Trouble]:
    """What is wrong with an example that could be read.  Raises Unfit."""
    shape = transform.shape(image.shape)
    expected.seen.add(shape)
    if any(size not in (-1, has) for has, size in zip(shape, expected.shape, strict=True)):
        yield Trouble(key, differs(shape, expected.first))
    if image.dtype == np.float32 and not np.isfinite(image).all():
        yield Trouble(key, "it holds numbers that are NaN or infinite")
    if wanted is not None and not wanted.fits(label):
        yield Trouble(key, f"its label is {label:g}; the net has {wanted.classes} classes, 0 to {wanted.classes - 1}")
