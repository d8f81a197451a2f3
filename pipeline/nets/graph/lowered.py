"""A net as plain operations (ONNX's, opset 17) with every shape known: what layers lower to and engines compile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]
OPSET = 17


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor by name, with its shape; float32 unless an operation says otherwise."""

    name: str
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

    inputs: name -> shape.  constants: name -> array (float32 weights; int64 indices and shapes).  outputs: the names
    asked for -> the value that holds each.
    """

    inputs: dict[str, Shape] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    """Of every value that an operation computes."""
    _names: int = 0

    def input(self, name: str, shape: Shape) -> Value:
        self.inputs[f"in:{name}"] = shape
        return Value(f"in:{name}", shape)

    def constant(self, array: NDArray[Any] | float | Sequence[int]) -> Value:
        """A constant: arrays as they are, Python floats as float32 scalars, integers as int64."""
        values = np.asarray(array)
        if values.dtype == np.float64:
            values = values.astype(np.float32)
        elif values.dtype.kind in "iu":
            values = values.astype(np.int64)
        name = self._fresh("const")
        self.constants[name] = values
        return Value(name, values.shape)

    def __call__(self, kind: str, inputs: Sequence[Value], shape: Shape, **attributes: Any) -> Value:
        """Adds an operation with one output of `shape`."""
        return self.many(kind, inputs, [shape], **attributes)[0]

    def many(self, kind: str, inputs: Sequence[Value], shapes: Sequence[Shape], **attributes: Any) -> list[Value]:
        """Adds an operation with an output for each of `shapes`."""
        outputs = [Value(self._fresh(kind), tuple(shape)) for shape in shapes]
        names = tuple(value.name for value in inputs), tuple(value.name for value in outputs)
        self.operations.append(Operation(kind, *names, attributes))
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
    operations: list[Operation] = []
    for operation in reversed(graph.operations):
        if wanted & set(operation.outputs):
            wanted |= set(operation.inputs)
            operations.append(operation)
    constants = {name: array for name, array in graph.constants.items() if name in wanted}
    inputs = {name: shape for name, shape in graph.inputs.items() if name in wanted}
    return replace(graph, inputs=inputs, operations=operations[::-1], constants=constants)
