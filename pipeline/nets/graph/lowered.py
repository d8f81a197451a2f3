"""A net as plain operations (ONNX's, opset 17) with every shape known: what layers lower to and engines compile.

A learned blob is a value of its own here, known by its layer's name and its number: training gives it other numbers at
each step.  What only prepares learned blobs (a reshape, BatchNorm's factor) stands apart from what reads images.  So
inference, whose numbers never change, computes it once (binding.py) and hands constants to engines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]
OPSET = 17
FLOAT32, FLOAT64 = 1, 11
"""ONNX's numbers of types, for Cast."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor by name, with its shape; float32 unless an operation says otherwise."""

    name: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Constant(Value):
    """A value that never changes, as a layer made it for itself."""


@dataclass(frozen=True, slots=True)
class Weight(Value):
    """A value of learned blobs and constants alone, as a layer uses it for itself: it changes only when they do."""


class Slot(NamedTuple):
    """A learned blob's place in a plan: which step's, and which of its blobs."""

    step: int
    blob: int


@dataclass(frozen=True, slots=True)
class Learned:
    """A learned blob that a graph reads: `layer`'s blob number `slot.blob`.  Of shared ones, the owner's."""

    layer: str
    slot: Slot
    shape: Shape


@dataclass(frozen=True, slots=True)
class Operation:
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass
class Lowered:
    """A graph under construction, then complete.

    inputs: name -> shape.  learned: name -> the blob.  preparations: the operations on learned blobs and constants
    alone; they come before all others.  constants: name -> array (float32 numbers; int64 indices and shapes).
    outputs: the names asked for -> the value that holds each.  layers: what an operation computes -> the layer that it
    is of, as messages name it.
    """

    inputs: dict[str, Shape] = field(default_factory=dict)
    learned: dict[str, Learned] = field(default_factory=dict)
    preparations: list[Operation] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    """Of every value that an operation computes."""
    layers: dict[str, str] = field(default_factory=dict)
    _names: int = 0

    def input(self, name: str, shape: Shape) -> Value:
        self.inputs[f"in:{name}"] = shape
        return Value(f"in:{name}", shape)

    def weight(self, blob: Learned) -> Weight:
        """A learned blob; the same value each time that it is asked for."""
        name = f"learned:{blob.layer}/{blob.slot.blob}"
        while self.learned.setdefault(name, blob) != blob:  # Caffe lets two layers have one name
            name += "'"
        return Weight(name, blob.shape)

    def constant(self, array: NDArray[Any] | float | Sequence[int]) -> Constant:
        """A constant: arrays as they are, Python floats as float32 scalars, integers as int64."""
        values = np.asarray(array)
        if values.dtype == np.float64:
            values = values.astype(np.float32)
        elif values.dtype.kind in "iu":
            values = values.astype(np.int64)
        return self._named(values)

    def double(self, number: float) -> Constant:
        """A float64 number, for what prepares learned blobs."""
        return self._named(np.asarray(number, np.float64))

    def _named(self, values: NDArray[Any]) -> Constant:
        name = self._fresh("const")
        self.constants[name] = values
        return Constant(name, values.shape)

    def __call__(self, kind: str, inputs: Sequence[Value], shape: Shape, **attributes: Any) -> Value:
        """Adds an operation with one output of `shape`."""
        return self.many(kind, inputs, [shape], **attributes)[0]

    def many(self, kind: str, inputs: Sequence[Value], shapes: Sequence[Shape], **attributes: Any) -> list[Value]:
        """Adds an operation with an output for each of `shapes`: weights, where it reads nothing but weights."""
        prepares = any(isinstance(value, Weight) for value in inputs) and all(
            isinstance(value, Weight | Constant) for value in inputs
        )
        made = Weight if prepares else Value
        outputs = [made(self._fresh(kind), tuple(shape)) for shape in shapes]
        names = tuple(value.name for value in inputs), tuple(value.name for value in outputs)
        (self.preparations if prepares else self.operations).append(Operation(kind, *names, attributes))
        self.shapes.update((value.name, value.shape) for value in outputs)
        return outputs

    def reshape(self, value: Value, shape: Shape) -> Value:
        """The value with another shape of the same count; nothing when it has it already."""
        assert math.prod(value.shape) == math.prod(shape), (value, shape)
        if value.shape == tuple(shape):
            return value
        return self("Reshape", [value, self.constant(np.array(shape, np.int64))], tuple(shape), allowzero=1)

    def add(self, value: Value, by: Value | float) -> Value:
        return self._binary("Add", value, by)

    def mul(self, value: Value, by: Value | float) -> Value:
        return self._binary("Mul", value, by)

    def _binary(self, kind: str, value: Value, by: Value | float) -> Value:
        other = by if isinstance(by, Value) else self.constant(float(by))
        return self(kind, [value, other], np.broadcast_shapes(value.shape, other.shape))

    def _fresh(self, stem: str) -> str:
        self._names += 1
        return f"{stem}_{self._names}"


def pruned(graph: Lowered) -> Lowered:
    """The same graph without what no output needs."""
    wanted = {value.name for value in graph.outputs.values()}
    operations = _wanted(graph.operations, wanted)
    preparations = _wanted(graph.preparations, wanted)
    constants = {name: array for name, array in graph.constants.items() if name in wanted}
    inputs = {name: shape for name, shape in graph.inputs.items() if name in wanted}
    learned = {name: blob for name, blob in graph.learned.items() if name in wanted}
    return replace(
        graph, inputs=inputs, learned=learned, preparations=preparations, operations=operations, constants=constants
    )


def _wanted(operations: Sequence[Operation], wanted: set[str]) -> list[Operation]:
    """Those that give something wanted, in order; what they read is wanted then."""
    found: list[Operation] = []
    for operation in reversed(operations):
        if wanted & set(operation.outputs):
            wanted |= set(operation.inputs)
            found.append(operation)
    return found[::-1]
