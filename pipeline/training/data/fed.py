"""Layers that a program feeds: Input and MemoryData."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError
from pipeline.nets.graph.lowered import Shape
from pipeline.nets.layers.registry import Layer, State
from pipeline.nets.layers.registry import make as make_layer
from pipeline.training.data.source import Batch, Labels, Trouble
from pipeline.training.data.transform import Transform, transform_of
from pipeline.training.draws.draws import Draws

Float32s = NDArray[np.float32]


class Fed:
    """What these sources have in common: no examples of their own."""

    count = 0
    in_order = True
    transform: Transform | None = None

    def __init__(self, spec: caffe_pb2.LayerParameter, train: bool) -> None:
        self.layer = spec.name
        layer: Layer = make_layer(spec, State(train, lambda _: None))
        self.shapes: dict[str, Shape] = dict(zip(spec.top, layer.shapes([]), strict=True))

    def keys(self, number: int) -> list[str]:
        size = next(iter(self.shapes.values()))[:1]
        return [f"{self.layer}[{number}:{at}]" for at in range(*size)]

    def examine(self, labels: Mapping[str, Labels], examples: range) -> Iterator[Trouble]:
        yield from ()

    def close(self) -> None:
        pass


class Input(Fed):
    """Its tops hold what a program put there last; zeros at first, as in Caffe.

    values: by top, live: what is written there is fed to the next pass.
    """

    def __init__(self, spec: caffe_pb2.LayerParameter, train: bool, draws: Draws, folder: Path) -> None:
        super().__init__(spec, train)
        self.values = {top: np.zeros(shape, np.float32) for top, shape in self.shapes.items()}

    def feed(self, top: str, values: NDArray[np.float32]) -> None:
        """Puts values there, of the top's shape.  Raises SolverError for another shape or an unknown top."""
        if top not in self.shapes or values.shape != self.shapes[top]:
            wants = self.shapes.get(top, "no such top")
            raise SolverError(f"layer '{self.layer}' does not take these values", f"{values.shape}; '{top}': {wants}")
        self.values[top] = np.array(values, np.float32)

    def reshape(self, top: str, shape: Shape) -> None:
        """The top has this shape from now on, and zeros; the net follows with its next pass."""
        self.shapes[top] = shape
        self.values[top] = np.zeros(shape, np.float32)

    def batch(self, number: int) -> Batch:
        return dict(self.values)


class Memory(Fed):
    """MemoryData: images and labels that a program hands over, gone through in batches, over and over.

    They come transformed already: Caffe's layer transforms Datums and matrices, not arrays.
    """

    def __init__(self, spec: caffe_pb2.LayerParameter, train: bool, draws: Draws, folder: Path) -> None:
        super().__init__(spec, train)
        if transform_of(spec, train, folder).words:
            draws.word(spec.name)  # Caffe seeds its transformer
        self._data: Float32s | None = None
        self._labels: Float32s | None = None
        self._since = 0
        self._last = -1

    def give(self, data: Float32s, labels: Float32s) -> None:
        """(n, channels, height, width) and (n,), n a multiple of batch_size; the next batch begins with the first."""
        shape = next(iter(self.shapes.values()))
        if data.shape[1:] != shape[1:] or len(data) != labels.size or not len(data) or len(data) % shape[0]:
            raise SolverError(
                f"layer '{self.layer}' (MemoryData) does not take these arrays",
                f"images {data.shape}, labels {labels.shape}",
                f"give images of {shape[1:]}, their number a multiple of {shape[0]}, and a label for each",
            )
        self._data, self._labels = np.array(data, np.float32), np.array(labels, np.float32).ravel()
        self._since = self._last + 1

    def batch(self, number: int) -> Batch:
        if self._data is None or self._labels is None:
            raise SolverError(
                f"layer '{self.layer}' (MemoryData) holds nothing", "", "give it images and labels before a step"
            )
        size = next(iter(self.shapes.values()))[0]
        first = (number - self._since) * size % len(self._data)
        self._last = number
        values = (self._data[first : first + size], self._labels[first : first + size])
        return dict(zip(self.shapes, values, strict=True))
