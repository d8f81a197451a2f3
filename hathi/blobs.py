"""Blobs and layers of a live net, with pycaffe's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import NetError
from pipeline.nets.graph.lowered import Shape

Array = NDArray[np.float32]


class Blob:
    """A blob of a net: `data` and `diff`, float32 arrays of its shape.

    Of a learned blob (`net.params`), both are the live numbers: what is written there, the net computes with.  Its
    `diff` is live until the next step or `clear_param_diffs`; ask for it anew after that.
    Of any other blob (`net.blobs`), `data` is what the last pass left there, and `diff` the gradient that the last
    backward pass left.  What is written into the `data` of an Input layer's top, the next pass is fed; what is written
    into the `diff` of a top, `backward(start=...)` begins with.
    """

    def __init__(
        self, data: Callable[[], Array], diff: Callable[[], Array], reshape: Callable[[Shape], None] | None = None
    ) -> None:
        """reshape: of an Input layer's top."""
        self._data, self._diff, self._reshape = data, diff, reshape

    @property
    def data(self) -> Array:
        return self._data()

    @property
    def diff(self) -> Array:
        return self._diff()

    @property
    def shape(self) -> Shape:
        return self.data.shape

    @property
    def count(self) -> int:
        return self.data.size

    def reshape(self, *dims: int) -> None:
        """Gives an Input layer's top another shape, and zeros; the other blobs follow with the next `forward`.

        Raises `Error` for any other blob, whose shape follows from what the net is fed.
        """
        if self._reshape is None:
            hint = "reshape the top of an Input layer, or feed a data layer with images of that size"
            raise NetError("the shape of this blob follows from what the net is fed", "", hint)
        if not dims or any(dim < 1 for dim in dims):
            raise NetError(f"no blob has the shape {dims}", "", "give a length of 1 or more for each axis")
        self._reshape(dims)

    @property
    def num(self) -> int:
        return self._axis(0)

    @property
    def channels(self) -> int:
        return self._axis(1)

    @property
    def height(self) -> int:
        return self._axis(2)

    @property
    def width(self) -> int:
        return self._axis(3)

    def _axis(self, number: int) -> int:
        """Blob::LegacyShape: axes that a blob of less than four lacks are 1."""
        shape = self.shape
        if len(shape) > 4:
            raise NetError(f"a blob of {len(shape)} axes has no num, channels, height, width", "", "use shape")
        return shape[number] if number < len(shape) else 1


@dataclass(frozen=True)
class Layer:
    """A layer of a net, as net.layers has it.  blobs: its learned ones, live."""

    name: str
    type: str
    blobs: Sequence[Blob]


class Blobs(Mapping[str, Blob]):
    """A net's blobs by name, in the order of its layers."""

    def __init__(self, names: Sequence[str], make: Callable[[str], Blob]) -> None:
        self._names, self._make = list(names), make

    def __getitem__(self, name: str) -> Blob:
        if name not in self._names:
            raise KeyError(f"the net has no blob {name!r}; it has: {', '.join(self._names)}")
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
