"""What a net was fed of an image, as a small picture for people."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.training.data.transform import Transform

SIDE = 96
"""Pixels of the longer side, at most."""
_LEAST = 4
"""An array that is lower or narrower is no picture."""
Array = NDArray[np.float32]


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether examples of this shape, (examples, channels, height, width), can be seen."""
    return len(shape) == 4 and min(shape[2:]) >= _LEAST and max(shape[2:]) <= 32 * min(shape[2:])


def picture(values: Array, transform: Transform | None, side: int = SIDE) -> bytes:
    """A PNG of an image (channels, height, width) as a data layer of phase TEST gives it.

    transform: what made it; what comes back are the pixels before it, else values are stretched from black to white.
    Three channels are blue, green, red, as in Caffe; another number than one is shown by its mean.
    side: pixels of the longer side, at most.
    """
    pixels = _pixels(transform.back(values) if transform is not None else values)
    image = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels.mean(axis=0)
    height, width = image.shape[:2]
    part = side / max(height, width)
    if part < 1:
        size = (max(1, round(width * part)), max(1, round(height * part)))
        image = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".png", np.rint(image).astype(np.uint8))[1])


def _pixels(values: Array) -> Array:
    """From 0 to 255; values that are no pixels are stretched."""
    finite = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if low < -1 or high > 256 or high <= 1:
        finite = (finite - np.float32(low)) * np.float32(255 / (high - low or 1.0))
    return np.clip(finite, 0, 255)
