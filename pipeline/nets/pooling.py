"""What becomes of a blob that has height and width: a feature of all its values, or of one for each channel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import NetError

Rows = NDArray[np.float32]


class Pooling:
    """(n, *shape) -> (n, dim) as `how` says: flatten, mean or max over height and width.

    shape: the blob's, without the batch.  size: (height, width) of the images.  last: whether the images' channels come
    last.  Raises NetError where there is no height and width to pool.
    """

    def __init__(self, how: str, blob: str, shape: tuple[int, ...], size: tuple[int, int], *, last: bool) -> None:
        self._how, self._shape = how, shape
        self._axes = _places(shape, size, last)
        if how != "flatten" and not self._axes:
            raise NetError(
                f"blob '{blob}' has no height and width that could be pooled",
                f"its shape is {_text(shape)} for one image",
                "leave pool at flatten, or choose a blob of channels, height and width",
            )

    @property
    def dim(self) -> int:
        """Numbers a row."""
        return math.prod(self._shape) if self._how == "flatten" else self._channels

    def __call__(self, values: Rows) -> Rows:
        """(n, *shape) -> (n, dim)."""
        if self._how == "flatten":
            return values.reshape(len(values), self.dim)
        if self._how == "max":
            return np.asarray(values.max(self._axes), np.float32)
        return np.asarray(values.mean(self._axes, dtype=np.float64), np.float32)

    def __str__(self) -> str:
        if self._how != "flatten":
            return f"pool {self._how} over the {_text(self._over)} places of {self._channels:,} channels"
        if self._axes and math.prod(self._over) > 1:
            return (
                f"pool flatten: {_text(self._shape)} becomes {self.dim:,} values (--pool mean or max: "
                f"{self._channels:,}, one for each channel)"
            )
        return "pool flatten"

    @property
    def _over(self) -> tuple[int, ...]:
        return tuple(self._shape[axis - 1] for axis in self._axes)

    @property
    def _channels(self) -> int:
        return math.prod(self._shape) // math.prod(self._over)


def _places(shape: tuple[int, ...], size: tuple[int, int], last: bool) -> tuple[int, ...]:
    """The axes of height and width, counted with the batch; none for a blob that has none.

    A model that takes channels last may compute in either order within: then the two axes have the image's proportions.
    """
    if len(shape) != 3:
        return ()
    high, wide = size
    for axes in ((1, 2), (2, 3)) if last else ():
        rows, columns = shape[axes[0] - 1], shape[axes[1] - 1]
        if abs(rows * wide - columns * high) < max(high, wide):
            return axes
    return (1, 2) if last else (2, 3)


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
