"""What a solver sees of a net: its learned blobs, and passes that give a loss and gradients.  It names no engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.nets.graph.lowered import Shape, Slot

Feeds = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class LearnedBlob:
    """A learned blob as a solver lists it (Net::learnable_params): one that others share stands here once.

    lr_mult, decay_mult: of the blob's owner, or of the first layer that shares it and names one; lr_mult is 0 for
    BatchNorm's own blobs, whatever their text says.
    """

    layer: str
    slot: Slot
    shape: Shape
    lr_mult: float
    decay_mult: float


@dataclass(frozen=True, slots=True)
class Mask:
    """What a Dropout layer asks of the random stream in each pass: a number for each value of its bottom.

    feed: the name of the input that takes it: 1 / (1 - ratio) where the value is kept, else 0.
    """

    feed: str
    layer: str
    shape: Shape
    ratio: float


@dataclass(frozen=True, slots=True)
class Output:
    """A blob that nothing of the net reads, as the log prints it; loss_weight: 0 where it is no part of the loss."""

    blob: str
    shape: Shape
    loss_weight: float


@dataclass(frozen=True, slots=True)
class Pass:
    """loss: the weighted sum, float32.  outputs: the values of each output, by blob."""

    loss: float
    outputs: dict[str, NDArray[np.float32]]


class Network(Protocol):
    """One phase of a net over one live set of learned blobs, which the nets of other phases may share.

    inputs: the shape of what each pass is fed, masks excluded, by top of a data layer.  learned: what the solver
    changes, in Caffe's order.  masks: in the order of their layers.  outputs: sorted by name.
    """

    inputs: dict[str, Shape]
    learned: Sequence[LearnedBlob]
    masks: Sequence[Mask]
    outputs: Sequence[Output]

    def forward(self, feeds: Feeds) -> Pass:
        """One pass without gradients.  In phase TRAIN, BatchNorm takes up the batch's mean and variance."""

    def backward(self, feeds: Feeds) -> Pass:
        """One pass, whose gradients are added to those that are there already."""

    def clear(self) -> None:
        """Sets every gradient to 0."""

    def weights(self, slot: Slot) -> NDArray[np.float32]:
        """A copy of a learned blob's values."""

    def gradient(self, slot: Slot) -> NDArray[np.float32]:
        """A copy of a learned blob's gradient: the sum of the passes since `clear`."""

    def load(self, slot: Slot, values: NDArray[np.float32]) -> None:
        """Gives a learned blob other values."""
