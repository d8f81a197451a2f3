"""Pixels -> what a net is fed, in the terms of Caffe's `caffe.io.Transformer` (python/caffe/io.py)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.codec.mean_image import read_mean
from pipeline.errors import ConfigError
from pipeline.images.decoding import Extent, Pixels, read
from pipeline.images.jpeg import Room
from pipeline.images.resizing import antialiased, resize
from pipeline.records import Failure
from pipeline.settings import Preprocess

Prepared = NDArray[np.float32]


class Preparation:
    """The way from bytes to input that a feature set's settings describe, for inputs of `size` (height, width).

    mean: what the mean's file holds, where the settings name one and it was read already.  channels: 3, or 1 for a net
    of grey images, which are read as Caffe's force_gray and cv2.IMREAD_GRAYSCALE read them.
    Raises ConfigError when the mean or std fits neither the channels nor the size.
    """

    def __init__(
        self, preprocess: Preprocess, size: tuple[int, int], mean: Prepared | None = None, channels: int = 3
    ) -> None:
        self.size, self._how, self._channels = size, preprocess, channels
        self._mean = _mean(preprocess, (channels, *size), mean)
        self._room = Room()
        if len(preprocess.std) not in (1, 3) or 0.0 in preprocess.std:
            raise ConfigError("preprocess.std does not fit", f"{preprocess.std}", "give 1 or 3 numbers, none of them 0")
        std = np.asarray(one_of(preprocess.std, channels, "std"), np.float32).reshape(-1, 1, 1)
        self._factor = (np.float32(preprocess.input_scale) / std).astype(np.float32)

    @property
    def reduce_to(self) -> tuple[int, int] | None:
        """What `decode` is told; None when the settings want every detail decoded."""
        if not self._how.reduced_decode:
            return None
        return self.size if self._how.resize == "direct" else (self._short, self._short)

    @property
    def _short(self) -> int:
        return max(self._how.short_side(self.size), *self.size)

    def __call__(self, content: bytes) -> Prepared | Failure:
        """Image bytes -> (channels, height, width) float32, or why not.  Raises nothing for any content."""
        found = self.noted(content)
        return found if isinstance(found, Failure) else found[0]

    def noted(self, content: bytes) -> tuple[Prepared, str] | Failure:
        """As a call, and what the decoder said of damage: "" for a good image."""
        found = read(content, self._how.max_pixels, self.reduce_to, self._room, grey=self._channels == 1)
        if isinstance(found, Failure):
            return found
        if found.damage and self._how.damaged == "fail":
            return Failure.of("truncated", found.damage)
        try:
            planes = self.prepare(found.pixels, found.extent)
        except MemoryError:
            return Failure.of("too_many_pixels", "the image does not fit into memory while it is resized")
        except Exception as error:  # an image that nobody foresaw is its own trouble, not that of those beside it
            return Failure.of("decode", f"resizing it raised {type(error).__name__}")
        if planes.shape != (self._channels, *self.size):
            return Failure.of("decode", "it was resized to another size than the net's")
        return planes, found.damage

    def prepare(self, image: Pixels, extent: Extent | None = None) -> Prepared:
        """(h, w, 3) uint8 BGR -> (channels, height, width) float32: grey where the net takes that, resized, channels
        ordered, (x raw_scale/255 - mean) / std x input_scale.  extent: as of `resize`."""
        if self._channels == 1:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
        direct = self._how.resize == "direct"
        if self._how.interpolation == "fast":
            placed = resize(image, self.size, extent) if direct else self._centre(image, extent)
        else:
            placed = self._antialiased(image, extent or image.shape[:2])
        split = cv2.split(placed)
        planes = np.array(split if self._how.channel_order == "bgr" else split[::-1], np.float32)
        if self._how.raw_scale != 255.0:
            planes *= np.float32(self._how.raw_scale / 255.0)
        planes -= self._mean
        if (self._factor != 1).any():
            planes *= self._factor
        return planes

    def _antialiased(self, image: Pixels, extent: Extent) -> Pixels:
        """As torchvision's Resize and CenterCrop place the picture: the long side rounded down, the middle to even."""
        if self._how.resize == "direct":
            return antialiased(image, self.size, self._how.interpolation, (0.0, 0.0, *extent))
        high, wide = extent
        short = self._short
        sized = (short, int(short * wide / high)) if high <= wide else (int(short * high / wide), short)
        rows, columns = high / sized[0], wide / sized[1]
        top, left = round((sized[0] - self.size[0]) / 2), round((sized[1] - self.size[1]) / 2)
        box = (top * rows, left * columns, (top + self.size[0]) * rows, (left + self.size[1]) * columns)
        return antialiased(image, self.size, self._how.interpolation, (*box[:2], min(box[2], high), min(box[3], wide)))

    def _centre(self, image: Pixels, extent: Extent | None) -> Pixels:
        """The short side to resize_to, then the middle cut out."""
        high, wide = extent or image.shape[:2]
        scale = self._short / min(high, wide)
        long = _LONGEST * max(self.size)  # of a very long image only the middle is needed
        if max(high, wide) * scale > long:
            keep = max(1, int(long / scale))
            top, left = max(0, int(high - keep) // 2), max(0, int(wide - keep) // 2)
            image = image[top : top + keep, left : left + keep]
            high, wide = min(high, keep), min(wide, keep)
        size = max(self._short, round(high * scale)), max(self._short, round(wide * scale))
        sized = resize(image, size, (high, wide))
        top, left = (sized.shape[0] - self.size[0]) // 2, (sized.shape[1] - self.size[1]) // 2
        return sized[top : top + self.size[0], left : left + self.size[1]]


_LONGEST = 8


def prepare(image: Pixels, preprocess: Preprocess, size: tuple[int, int]) -> Prepared:
    """(h, w, 3) uint8 BGR -> (3, *size) float32; for many images make one `Preparation`."""
    return Preparation(preprocess, size).prepare(image)


def one_of(values: list[float], channels: int, name: str) -> list[float]:
    """The values of a setting for so many channels.  Raises ConfigError for several of which a grey net takes one."""
    if channels == 1 and len(set(values)) != 1:
        raise ConfigError(
            f"preprocess.{name} does not fit",
            f"it has {len(values)} numbers, and the net takes grey images: one channel",
            f"give the one that the net was trained with: preprocess.{name}=0, or --preprocess unit"
            if name == "mean"
            else f"give the one that the net was trained with, such as preprocess.{name}=1",
        )
    return values[:1] if channels == 1 else values


def _mean(preprocess: Preprocess, shape: tuple[int, int, int], read: Prepared | None) -> Prepared:
    """shape: (channels, height, width) of what the net takes."""
    channels, *size = shape
    if isinstance(preprocess.mean, list):
        if len(preprocess.mean) not in (1, 3):
            raise ConfigError("preprocess.mean does not fit", f"{preprocess.mean}", "give 1 or 3 numbers, or a file")
        return np.asarray(one_of(preprocess.mean, channels, "mean"), np.float32).reshape(-1, 1, 1)
    mean = read_mean(preprocess.mean) if read is None else read
    if mean.ndim == 1:
        mean = mean.reshape(-1, 1, 1)
    short = preprocess.short_side((size[0], size[1]))
    if preprocess.resize == "crop" and mean.shape[1:] == (short, short):
        top, left = (short - size[0]) // 2, (short - size[1]) // 2
        if top >= 0 and left >= 0:
            mean = mean[:, top : top + size[0], left : left + size[1]]
    if mean.shape not in ((channels, 1, 1), (1, 1, 1), (channels, *size)):
        has = " x ".join(map(str, mean.shape))
        raise ConfigError(
            f"the mean image {preprocess.mean} does not fit",
            f"it has {has}; the net takes {' x '.join(map(str, shape))}",
            "give one number for each channel instead: the mean over all pixels",
        )
    return np.ascontiguousarray(mean, np.float32)
