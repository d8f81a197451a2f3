"""What a layer type is, and the list of those that are known."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError
from pipeline.nets.caffe.branches import BRANCHES, FROM_BRANCHES, MEANINGLESS
from pipeline.nets.graph.lowered import Lowered, Shape, Value

Array = NDArray[np.float32]
INT_MAX = 2**31 - 1  # values that a blob of Caffe's may hold


@dataclass(frozen=True, slots=True)
class Parameter:
    """A learned blob that a layer has: its shape, and what fills it when no weights are given."""

    shape: Shape
    filler: caffe_pb2.FillerParameter


@dataclass(frozen=True, slots=True)
class State:
    """What a layer may ask about the net that it stands in; `warn` takes what a person should know.

    train: its phase is TRAIN, by its own word or by the net's.
    """

    train: bool
    warn: Callable[[str], None]


class Layer:
    """One layer of a net.  A type is a subclass with @register("Type"); it says what Caffe's layer of that type says:

    parameters(bottoms): the learned blobs that bottoms of these shapes call for.
    shapes(bottoms): the shapes of the tops; refuses bottoms that do not fit.
    lower(...): the operations that compute the tops.
    """

    bottoms: ClassVar[tuple[int, int | None]] = (1, 1)
    """The least and the largest number of bottoms (None: any)."""
    tops: ClassVar[tuple[int, int | None]] = (1, 1)
    in_place: ClassVar[bool] = False
    """Caffe's CPU code computes it rightly when a top is a bottom."""
    shares: ClassVar[bool] = False
    """Its tops are views of its bottom's memory, as Caffe's ShareData: a later in-place layer changes both."""

    def __init__(self, spec: caffe_pb2.LayerParameter, state: State) -> None:
        self.spec, self.state, self.name = spec, state, spec.name

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        return []

    def fillings(self, bottoms: Sequence[Shape]) -> list[int]:
        """Its learned blobs by number, in the order in which Caffe's set-up fills them.

        One that Caffe fills again and throws away stands there again: random numbers are drawn for it each time.
        """
        return list(range(len(self.parameters(bottoms))))

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        raise NotImplementedError

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        raise NotImplementedError

    def constants(self) -> list[Array]:
        """What it computes with beside its learned blobs and its settings: what it read from a file."""
        return []

    def complete(self, spec: caffe_pb2.LayerParameter) -> None:
        """Adds to its settings what Caffe's layer adds as it is set up: a .caffemodel has that as well."""

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        """Each item of the batch (the first axis of every bottom and top) is computed by itself.

        False where that is not so, and where it is not known: rows.py looks at what the layer lowers to.
        """
        return False

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """Of one pass, where weights meet values; 0 for what costs little."""
        return 0

    def in_place_is_right(self) -> bool:
        return self.in_place

    def is_shared(self) -> bool:
        return self.shares

    def refuse(self, says: str, hint: str = "") -> NetError:
        """The error of a layer that cannot be: names it and says what is wrong."""
        return NetError(f"layer '{self.name}' ({self.spec.type}): {says}", "", hint)

    def axis(self, index: int, shape: Shape, what: str = "axis", extra: int = 0) -> int:
        """Caffe's CanonicalAxisIndex: negative ones count from the end."""
        axes = len(shape) + extra
        if not -axes <= index < axes:
            raise self.refuse(f"{what} {index} is out of range for a {len(shape)}-axis bottom of shape {text(shape)}")
        return index % axes if axes else 0

    def check_padded(self, sizes: Sequence[int], pad: Sequence[int]) -> None:
        """Refuses padding that no machine could hold, before an engine tries."""
        padded = [size + 2 * side for size, side in zip(sizes, pad, strict=True)]
        if math.prod(padded) > INT_MAX:
            raise self.refuse(f"with its padding, its input would be {text(padded)}: more than INT_MAX values")

    def __repr__(self) -> str:
        return f"<{self.spec.type} {self.name!r}>"


class Refused(Layer):
    """Stands in a net's plan for a layer that cannot be computed, so that what does not need it can be."""

    bottoms = (0, None)
    tops = (0, None)

    def __init__(self, spec: caffe_pb2.LayerParameter, state: State, why: NetError) -> None:
        super().__init__(spec, state)
        self.why = why

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        raise self.why

    def in_place_is_right(self) -> bool:
        return True


REGISTRY: dict[str, type[Layer]] = {}
L = TypeVar("L", bound=type[Layer])

DATA = {
    "Data": "a database", "ImageData": "a list of images", "HDF5Data": "HDF5 files", "WindowData": "a list of windows",
}  # fmt: skip
"""What a net is trained with.  Whoever has those files feeds such a layer (inputs.Fed); inference has none of them."""
NEED_FILES = {**DATA, "HDF5Output": "a file to write", "Python": "code of its own"}


def register(*types: str) -> Callable[[L], L]:
    def enter(cls: L) -> L:
        for name in types:
            REGISTRY[name] = cls
        return cls

    return enter


def make(spec: caffe_pb2.LayerParameter, state: State) -> Layer:
    """The layer of a specification.

    Raises NetError for a fault of its text, an unknown type and a wrong number of bottoms or tops.
    """
    if spec.fault:
        hint = "correct the text there, or ask for a blob that does not depend on this layer (--blob NAME)"
        raise NetError(f"layer '{spec.name}' cannot be read", spec.fault, hint)
    if spec.HasField("phase"):  # Caffe gives a layer the net's phase only where it names none
        state = replace(state, train=spec.phase == caffe_pb2.TRAIN)
    cls = REGISTRY.get(spec.type)
    if cls is None:
        if spec.type in NEED_FILES:
            raise NetError(
                f"layer '{spec.name}' ({spec.type}) needs {NEED_FILES[spec.type]}",
                "",
                "use the net's deploy.prototxt, whose input is an Input layer",
            )
        if spec.type in BRANCHES:
            raise NetError(
                f"layer '{spec.name}': unknown layer type '{spec.type}'",
                f"it is of {BRANCHES[spec.type]}'s branch of Caffe; known types: {', '.join(sorted(REGISTRY))}",
                "ask for a blob that does not depend on this layer (--blob NAME; `hathi net show` lists them)",
            )
        near = difflib.get_close_matches(spec.type, REGISTRY, n=3, cutoff=0.5)
        raise NetError(
            f"layer '{spec.name}': unknown layer type '{spec.type}'",
            f"known types: {', '.join(sorted(REGISTRY))}",
            f"near names: {', '.join(near)}"
            if near
            else "the net may be written for another branch of Caffe; ask for a blob that "
            "does not depend on this layer (--blob NAME)",
        )
    for field, _ in spec.ListFields():
        if field.number >= FROM_BRANCHES and field.name not in MEANINGLESS:
            raise NetError(
                f"layer '{spec.name}' ({spec.type}) has {field.name}",
                "the field belongs to another branch of Caffe, and Hathi does not know what it changes",
                "remove it if it changes nothing, or ask for a blob that does not depend on this layer (--blob NAME)",
            )
    layer = cls(spec, state)
    _count(layer, "bottom", len(spec.bottom), cls.bottoms)
    _count(layer, "top", len(spec.top), cls.tops)
    return layer


def _count(layer: Layer, what: str, has: int, allowed: tuple[int, int | None]) -> None:
    least, most = allowed
    if has < least or (most is not None and has > most):
        wants = str(least) if least == most else f"{least} or more" if most is None else f"{least} to {most}"
        raise layer.refuse(f"has {has} {what} blobs; it takes {wants}")


def text(shape: Sequence[int]) -> str:
    """A shape as Caffe prints it: `2 3 4 4 (96)`."""
    return " ".join([*map(str, shape), f"({math.prod(shape)})"])


def filler(kind: str = "constant", **values: Any) -> caffe_pb2.FillerParameter:
    return caffe_pb2.FillerParameter(type=kind, **values)
