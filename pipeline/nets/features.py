"""A feature set's net: prepared images in, one row of features an image out."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import NetError
from pipeline.nets import fingerprint
from pipeline.nets.engines import EngineInfo
from pipeline.nets.net import Net, load
from pipeline.nets.plan import Read
from pipeline.settings import FeatureSet

Rows = NDArray[np.float32]


class FeatureNet:
    """Runs batches of one padded shape, so that a row's bits do not depend on its neighbours.

    feature_set: its paths absolute.  threads: cores that the net may use, 0 for all.
    dim: numbers a row.  input_size: (height, width) of prepared images.  engine: what runs it, and why.
    Raises NetError when the files, the blob or the net's input do not fit.
    """

    def __init__(self, feature_set: FeatureSet, threads: int = 0) -> None:
        self._set = feature_set
        self.batch_size = feature_set.batch_size
        weights = Path(feature_set.weights) if feature_set.weights else None
        self._net: Net = load(feature_set.net, weights, blobs=[feature_set.blob], engine=feature_set.engine,
                              precision=feature_set.precision, threads=threads)  # fmt: skip
        self._input, shape = _image_input(self._net, feature_set.blob)
        self.input_size: tuple[int, int] = (shape[2], shape[3])
        self._shape = (self.batch_size, *shape[1:])
        out = self._net.plan.shapes({self._input: self._shape}, self._net.plan.needed([self._read]))[self._read.view]
        if not out or out[0] != self.batch_size:
            raise NetError(f"blob '{feature_set.blob}' has no row for each image", f"its shape is {out} for a batch of "
                           f"{self.batch_size}", "choose a blob whose first axis is the batch")  # fmt: skip
        self.dim = math.prod(out[1:])

    @property
    def _read(self) -> Read:
        return self._net.plan.read(self._set.blob)

    @property
    def engine(self) -> EngineInfo:
        return self._net.engine

    @property
    def warnings(self) -> list[str]:
        """What was odd about the net, for the log."""
        return self._net.warnings

    @property
    def normalise(self) -> str:
        return self._set.normalise

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 over what decides a feature's value (fingerprint.py); reads the weights the first time."""
        return fingerprint.of_features(self._set, lambda: fingerprint.of_net(self._net, self._set.blob))

    def forward(self, batch: NDArray[np.uint8] | NDArray[np.float32]) -> Rows:
        """(n, 3, h, w) prepared images -> (n, dim) float32, normalised as the feature set says.

        n may be 0 or any number; more than batch_size take several passes.  A row that is not finite comes back as
        NaN in every place: `finite` finds them.
        """
        if batch.ndim != 4 or batch.shape[1:] != self._shape[1:]:
            raise NetError(f"the images have the shape {batch.shape}", f"the net takes (n, {self._shape[1:]})")
        rows = [self._pass(batch[first : first + self.batch_size]) for first in range(0, len(batch), self.batch_size)]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    def _pass(self, batch: NDArray[np.uint8] | NDArray[np.float32]) -> Rows:
        padded = batch
        if len(batch) < self.batch_size or batch.dtype != np.float32:
            padded = np.zeros(self._shape, np.float32)
            padded[: len(batch)] = batch
        rows = self._net.forward({self._input: padded})[self._set.blob].reshape(self.batch_size, self.dim)[: len(batch)]
        rows[~np.isfinite(rows).all(1)] = np.nan
        return normalised(rows) if self._set.normalise == "l2" else rows


def finite(rows: Rows) -> NDArray[np.bool_]:
    """(n, dim) -> (n,): which rows are features; the others are failures, `not_finite`."""
    return np.asarray(np.isfinite(rows).all(1))


def normalised(rows: Rows) -> Rows:
    """Each row divided by its Euclidean length (summed in float64); a row of zeros stays zeros."""
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))[:, None]
    lengths[lengths == 0] = 1.0
    return np.asarray(rows / lengths, np.float32)


def _image_input(net: Net, blob: str) -> tuple[str, tuple[int, ...]]:
    """The one input that the blob depends on, which must take images of three channels."""
    steps = net.plan.needed([net.plan.read(blob)])
    names = [name for name, place in net.plan.inputs.items() if place.step in steps]
    if len(names) != 1:
        raise NetError(f"blob '{blob}' depends on {len(names)} inputs", ", ".join(names), "a feature needs exactly one")
    shape = net.inputs[names[0]]
    if len(shape) != 4 or shape[1] != 3:
        raise NetError(f"input '{names[0]}' takes no colour images", f"its shape is {shape}", "batch, 3, height, width")
    return names[0], shape
