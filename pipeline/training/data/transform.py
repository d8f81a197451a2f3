"""transform_param to the letter (data_transformer.cpp): crop, mirror, mean, scale, in Caffe's order of draws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.codec.mean_image import read_mean
from pipeline.errors import FormatError, SolverError
from pipeline.nets.graph.lowered import Shape
from pipeline.training.draws.words import Uint32s

Float32s = NDArray[np.float32]

_BRANCHES = 1000  # from this number on, a field of transform_param is another branch's


class Unfit(Exception):
    """An image that the transformation does not take: the reason as a sentence."""


@dataclass(frozen=True, slots=True)
class Transform:
    """What a data layer does to each image.

    mean: (channels, height, width) of the whole image, or (1 or channels, 1, 1), float32; None: nothing is subtracted.
    colour: how encoded images are decoded: force_color, force_gray, or None.
    """

    crop: int
    mirror: bool
    scale: np.float32
    mean: Float32s | None
    train: bool
    colour: bool | None

    @property
    def words(self) -> int:
        """Random words that an image takes: one for the mirror, then two for the place of the crop."""
        return int(self.mirror) + 2 * (self.train and self.crop > 0)

    def shape(self, image: Shape) -> Shape:
        """(channels, height, width) of what comes out.  Raises Unfit."""
        channels, height, width = image
        if min(image) < 1:
            raise Unfit(f"its shape is {_sizes(image)}")
        if height < self.crop or width < self.crop:
            remedy = f"crop_size may be {min(height, width)} at most, if images of this size are right"
            raise Unfit(f"it is {height} x {width}, smaller than crop_size {self.crop}; {remedy}")
        if self.mean is not None:
            if self.mean.shape[1:] == (1, 1) and self.mean.shape != image:
                if self.mean.shape[0] not in (1, channels):
                    remedy = f"give one mean_value for all, or {channels}, if images of {channels} channels are right"
                    raise Unfit(f"it has {channels} channels, and there are {self.mean.shape[0]} mean_value; {remedy}")
            elif self.mean.shape != image:
                raise Unfit(f"it is {_sizes(image)}, the mean image {_sizes(self.mean.shape)}")
        return (channels, self.crop or height, self.crop or width)

    def apply(self, image: NDArray[Any], words: Uint32s, out: Float32s) -> None:
        """Writes the transformed image, (channels, height, width), into `out`.  words: as many as `words` says.

        It is (value - mean) * scale in float32, value by value, as Caffe computes it.
        """
        _, height, width = image.shape
        mirrored = self.mirror and words[0] % 2 == 1
        mean = self.mean
        if self.crop:
            size = self.crop
            if self.train:
                top, left = int(words[-2]) % (height - size + 1), int(words[-1]) % (width - size + 1)
            else:
                top, left = self._centre(height, width)
            image = image[:, top : top + size, left : left + size]
            if mean is not None and mean.shape[1:] != (1, 1):
                mean = mean[:, top : top + size, left : left + size]
        target = out[:, :, ::-1] if mirrored else out
        if mean is None:
            target[...] = image
        else:
            np.subtract(image, mean, out=target, dtype=np.float32)
        if self.scale != 1:
            out *= self.scale

    def apply_to_all(self, images: NDArray[Any], words: Uint32s, out: Float32s) -> None:
        """`apply` of each of (n, channels, height, width), the same bits, in a few passes over all of them.

        words: (n, as many as `words` says).
        """
        mean = None if self.mean is None else self.mean[None]
        if self.crop:
            height, width = images.shape[2:]
            if self.train:
                tops, lefts = words[:, -2] % (height - self.crop + 1), words[:, -1] % (width - self.crop + 1)
            else:
                centre = self._centre(height, width)
                tops, lefts = np.full((2, len(images)), np.array(centre)[:, None])
            if mean is not None and mean.shape[2:] != (1, 1):
                mean = _cropped(mean, np.zeros(len(images), np.intp), tops, lefts, self.crop)
            images = _cropped(images, np.arange(len(images)), tops, lefts, self.crop)
        if mean is None:
            out[...] = images
        else:
            np.subtract(images, mean, out=out, dtype=np.float32)
        if self.mirror:
            mirrored = words[:, 0] % 2 == 1
            out[mirrored] = out[mirrored][..., ::-1]
        if self.scale != 1:
            out *= self.scale

    def _centre(self, height: int, width: int) -> tuple[int, int]:
        """(top, left) of the crop in phase TEST."""
        return (height - self.crop) // 2, (width - self.crop) // 2

    def back(self, values: Float32s) -> Float32s:
        """The pixels of an image that `apply` has made in phase TEST; one that was mirrored stays so."""
        pixels = values / self.scale if self.scale else values
        mean = self.mean
        if mean is None:
            return pixels
        if self.crop and mean.shape[1:] != (1, 1):
            top, left = self._centre(*mean.shape[1:])
            mean = mean[:, top : top + self.crop, left : left + self.crop]
        found: Float32s = pixels + mean
        return found


def _cropped(images: NDArray[Any], which: NDArray[Any], tops: Any, lefts: Any, size: int) -> NDArray[Any]:
    """(n, channels, size, size): the square at each place of each of these images."""
    squares = np.lib.stride_tricks.sliding_window_view(images, (size, size), (2, 3))
    found: NDArray[Any] = squares[which, :, tops, lefts]
    return found


def transform_of(spec: caffe_pb2.LayerParameter, train: bool, folder: Path) -> Transform:
    """The transformation of a data layer.  Raises SolverError for what Caffe refuses, ConfigError for its mean file."""
    given = spec.transform_param
    where = f"layer '{spec.name}' ({spec.type})"
    for field, _ in given.ListFields():
        if field.number >= _BRANCHES:
            raise SolverError(
                f"{where}: transform_param has {field.name}",
                "the field belongs to another branch of Caffe",
                "remove it, or prepare the images before the training",
            )
    if given.HasField("mean_file") and given.mean_value:
        raise SolverError(f"{where}: mean_file and mean_value are both given", "", "remove one of them")
    if given.force_color and given.force_gray:
        raise SolverError(f"{where}: force_color and force_gray are both set", "", "remove one of them")
    mean: Float32s | None = None
    if given.HasField("mean_file"):
        mean = read_mean(folder / given.mean_file)
        if mean.ndim != 3:
            raise SolverError(
                f"{where}: the mean_file {given.mean_file} holds no image",
                f"its shape is {mean.shape}",
                "Caffe subtracts a mean image of channels x height x width; one number a channel is a mean_value",
            )
    elif given.mean_value:
        mean = np.array(given.mean_value, np.float32).reshape(-1, 1, 1)
    colour = True if given.force_color else False if given.force_gray else None
    return Transform(given.crop_size, given.mirror, np.float32(given.scale), mean, train, colour)


def unfit(source: str, key: str, says: str) -> FormatError:
    """The error of an example that cannot be used."""
    return FormatError(f"example '{key}' of {source} cannot be used", says, "repair or remove it")


def _sizes(shape: Shape) -> str:
    return " x ".join(map(str, shape))
