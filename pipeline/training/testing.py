"""The means of a test: of each element of each output, over its batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.training.network import Output, Pass

F = np.float32


class Scores:
    """Sums in float32, batch after batch, as Caffe adds them."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = outputs
        self._sums: dict[str, NDArray[np.float32]] = {}
        self._loss, self._batches = F(0), 0

    def add(self, result: Pass) -> None:
        """Takes up a batch."""
        self._loss = F(self._loss + F(result.loss))
        self._batches += 1
        for output in self._outputs:
            values = result.outputs[output.blob].astype(F).ravel()
            before = self._sums.get(output.blob)
            self._sums[output.blob] = values if before is None else before + values

    def loss(self) -> float:
        """The mean of the nets' losses."""
        return float(self._loss / F(self._batches))

    def means(self) -> dict[str, NDArray[np.float32]]:
        """By output, flat."""
        return {blob: values / F(self._batches) for blob, values in self._sums.items()}
