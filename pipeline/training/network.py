"""What a solver sees of a net: its learned blobs, and passes that give a loss and gradients.  It names no engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Shape, Slot
from pipeline.nets.graph.plan import Place

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
class Filling:
    """What a DummyData layer asks of the random stream in each pass: a top that its filler fills anew.

    feed: the name of the input that takes the values.
    """

    feed: str
    layer: str
    shape: Shape
    filler: caffe_pb2.FillerParameter


Draw = Mask | Filling


@dataclass(frozen=True, slots=True)
class MovingSums:
    """A BatchNorm layer's own blobs (mean, variance, weight), by owner: what a pass moves without a gradient.

    A pass in phase TRAIN makes each of them fraction * blob + what its batch has.
    """

    blobs: tuple[Slot, Slot, Slot]
    fraction: float


@dataclass(frozen=True, slots=True)
class Seen:
    """One number of a pass that is watched, as a line of Caffe's debug_info prints it.

    what: "top" or "param" (forward), "bottom" or "param" (backward).  blob: its name; of a parameter its number, or in
    the forward lines the name by which it is shared.  mean: of the absolute values; NaN or infinite where one of them
    is.
    """

    layer: str
    what: str
    blob: str
    mean: float


@dataclass(frozen=True, slots=True)
class Watched:
    """A pass with what was seen on the way, in the order of Caffe's own lines; norms: Caffe's four of all gradients.

    norms: L1 of all learned values and of their gradients, then L2 of both; None after a pass without gradients.
    """

    result: Pass
    forward: Sequence[Seen]
    backward: Sequence[Seen] = ()
    norms: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class NotFinite:
    """The first blob of a pass that holds NaN or infinity.  gradient: it is the blob's gradient, not its values."""

    layer: str
    blob: str
    gradient: bool


@dataclass(frozen=True, slots=True)
class Output:
    """A blob that nothing of the net reads, as the log prints it; loss_weight: 0 where it is no part of the loss."""

    blob: str
    shape: Shape
    loss_weight: float


@dataclass(frozen=True, slots=True)
class Pass:
    """loss: the weighted sum, float32.  outputs: the values of each output, by blob.

    judged: of a net that only tests what its Accuracy layer reads, by blob (predictions/judged.py).
    """

    loss: float
    outputs: dict[str, NDArray[np.float32]]
    judged: dict[str, NDArray[np.float32]] = field(default_factory=dict)


class Kept(Protocol):
    """What the last pass of a net computed, blob by blob.  Float32; None: that pass did not reach the blob."""

    def value(self, blob: str) -> NDArray[np.float32] | None:
        """The blob's values as the pass left them."""

    def gradient(self, blob: str) -> NDArray[np.float32] | None:
        """Its gradient: of a blob that layers overwrite in place, of its first values, as it stands in Caffe's diff."""


class Network(Protocol):
    """One phase of a net over one live set of learned blobs, which the nets of other phases may share.

    graph: its layers.  inputs: the shape of what each pass is fed, draws excluded, by top of a data layer.
    learned: what the solver changes, in Caffe's order.  draws: what each pass is fed from the random stream, in the
    order of their layers.  masks: those of Dropout alone.  outputs: sorted by name.  moving: the sums of its BatchNorm
    layers; a net that only tests has none.
    """

    graph: CaffeGraph
    inputs: dict[str, Shape]
    learned: Sequence[LearnedBlob]
    draws: Sequence[Draw]
    outputs: Sequence[Output]
    moving: Sequence[MovingSums]

    @property
    def masks(self) -> Sequence[Mask]: ...

    def draws_of(self, feeds: Feeds) -> Sequence[Draw]:
        """What a pass is fed from the random stream whose data layers give these tops, of whatever shape."""

    def forward(self, feeds: Feeds) -> Pass:
        """One pass without gradients.  In phase TRAIN, BatchNorm takes up the batch's mean and variance."""

    def backward(self, feeds: Feeds) -> Pass:
        """One pass, whose gradients are added to those that are there already."""

    def watched(self, feeds: Feeds, gradients: bool) -> Watched:
        """`backward` (gradients) or `forward`, with what debug_info prints."""

    def first_not_finite(self, feeds: Feeds) -> NotFinite | None:
        """The first blob that is not finite when the same pass runs again; it changes no weights and no gradients."""

    def keep(self) -> Kept:
        """What the last pass computed, from now on: a net that is never asked keeps nothing."""

    def ahead(self, feeds: Feeds, last: int | None = None, first: int = 0) -> Pass:
        """`forward`, after which `back` may follow.  last: the step after which it ends.

        first: the step with which it begins, on what the last pass left in the blobs; feeds that it lacks are there.
        """

    def back(self, seeds: Mapping[Place, NDArray[np.float32]], last: int | None = None, first: int = 0) -> None:
        """The gradients of the pass that `ahead` made, added to those that are there already; once for each pass.

        seeds: gradients of tops, to begin with in place of the loss.  last: the step from which it runs down;
        first: the one with which it ends.  Raises
        NetError where no pass is there, and where nothing that it begins with depends on what has gradients.
        """

    def share(self, other: Network) -> None:
        """Net::ShareTrainedLayersWith: layers of one name have the blobs of `other` from now on, gradients apart."""

    def clear(self) -> None:
        """Sets every gradient to 0."""

    def tensor(self, slot: Slot) -> Any:
        """A learned blob's values as the engine holds them, live and in C order: an update works on them in place."""

    def gradient_tensor(self, slot: Slot) -> Any:
        """Its gradient, live and in C order, until the next `clear` or `backward`: an update may use it up."""

    def take_gradient(self, slot: Slot) -> NDArray[np.float32]:
        """Its gradient in memory that is the caller's from now on, as the net has it no more.  C order; CPU alone."""

    def over(self, memory: NDArray[np.float32]) -> Any:
        """This memory, in C order, as the engine's tensor: what one writes, the other reads.  CPU alone."""

    def place(self, slot: Slot, memory: NDArray[np.float32]) -> None:
        """A learned blob's values lie in this memory of its shape from now on, as they are.  CPU alone."""

    def place_gradient(self, slot: Slot, memory: NDArray[np.float32]) -> None:
        """Its gradient is what stands in this memory, until the next `clear`.  CPU alone."""

    def array(self, tensor: Any, into: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """A copy of what the engine holds, made by all its threads.  into: the memory that takes it, of its shape."""

    def weights(self, slot: Slot) -> NDArray[np.float32]:
        """A copy of a learned blob's values."""

    def gradient(self, slot: Slot) -> NDArray[np.float32]:
        """A copy of a learned blob's gradient: the sum of the passes since `clear`."""

    def load(self, slot: Slot, values: NDArray[np.float32]) -> None:
        """Gives a learned blob other values."""

    def carried(self) -> dict[str, NDArray[np.float32]]:
        """What goes from one pass to the next beside the weights: the hidden states of LSTM and RNN, by name."""

    def carry(self, states: Mapping[str, NDArray[np.float32]]) -> None:
        """Gives those other values, as a snapshot holds them."""
