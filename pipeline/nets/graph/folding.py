"""Folds what follows a convolution and is linear in each channel (BatchNorm, Scale, Bias, Power) into its weights."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.nets.graph.lowered import Lowered, Operation, pruned

Channels = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Linear:
    """What follows a convolution: its output times `factor` plus `shift`, a number for each channel."""

    operation: Operation
    factor: Channels
    shift: Channels

    def then(self, follower: Operation, values: Channels) -> _Linear:
        operation = replace(self.operation, outputs=follower.outputs)
        if follower.kind == "Mul":
            return _Linear(operation, self.factor * values, self.shift * values)
        return _Linear(operation, self.factor, self.shift + values)


def folded(graph: Lowered) -> Lowered:
    """The same graph with fewer operations; sums differ by rounding only.  Weights are multiplied in float64.

    The graph that is given is used up: its constants are let go as they are replaced, so that no two sets are held.
    """
    constants = graph.constants
    graph = pruned(graph)
    constants.clear()
    readers = Counter(name for operation in graph.operations for name in operation.inputs)
    readers.update(value.name for value in graph.outputs.values())
    kept: list[Operation | _Linear] = []
    places: dict[str, int] = {}  # of each convolution's output, where it stands in `kept`
    for operation in graph.operations:
        place = places.get(operation.inputs[0]) if operation.inputs else None
        if place is not None and operation.kind in ("Mul", "Add") and readers[operation.inputs[0]] == 1:
            before = kept[place]
            assert isinstance(before, _Linear)
            values = _by_channel(graph, operation.inputs[1], before.operation)
            if values is not None:
                kept[place] = before.then(operation, values)
                places[operation.outputs[0]] = place
                continue
        if operation.kind == "Conv" and operation.inputs[1] in graph.constants:
            channels = graph.constants[operation.inputs[1]].shape[0]
            places[operation.outputs[0]] = len(kept)
            kept.append(_Linear(operation, np.ones(channels), np.zeros(channels)))
        else:
            kept.append(operation)
    operations = [_written(one, graph.constants, readers) if isinstance(one, _Linear) else one for one in kept]
    return pruned(replace(graph, operations=operations))


def _by_channel(graph: Lowered, operand: str, conv: Operation) -> Channels | None:
    """One number a channel, if that is what the operand holds: a scalar or (1, C, 1, ...)."""
    values, weights = graph.constants.get(operand), graph.constants[conv.inputs[1]]
    if values is None or values.ndim > weights.ndim:
        return None
    channels, axes = weights.shape[0], weights.ndim
    shape = (1,) * (axes - values.ndim) + values.shape
    if shape not in ((1,) * axes, (1, channels) + (1,) * (axes - 2)):
        return None
    return np.broadcast_to(values.astype(np.float64).reshape(-1), (channels,)).copy()


def _written(linear: _Linear, constants: dict[str, NDArray[np.float32]], readers: Counter[str]) -> Operation:
    """The convolution with new weights; its old ones go unless others read them."""
    operation = linear.operation
    if (linear.factor == 1).all() and not linear.shift.any():
        return operation
    weights, *bias = operation.inputs[1:]
    name = f"{weights}_{operation.outputs[0]}"
    old = constants[weights] if readers[weights] > 1 else constants.pop(weights)
    readers[weights] -= 1
    column = linear.factor.reshape((-1,) + (1,) * (old.ndim - 1))
    constants[name] = np.multiply(old, column, out=np.empty_like(old), dtype=np.float64, casting="same_kind")
    shift = constants[bias[0]].astype(np.float64) if bias else 0.0
    constants[f"{name}_bias"] = np.asarray(shift * linear.factor + linear.shift, np.float32)
    return replace(operation, inputs=(operation.inputs[0], name, f"{name}_bias"))
