"""Folds what follows a convolution and is linear in each channel (BatchNorm, Scale, Bias, Power) into its weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.nets.lowered import Lowered, Operation, pruned


def folded(graph: Lowered) -> Lowered:
    """The same graph with fewer operations; sums differ by rounding only.  Weights are multiplied in float64."""
    graph = pruned(graph)
    readers: dict[str, int] = {}
    for operation in graph.operations:
        for name in operation.inputs:
            readers[name] = readers.get(name, 0) + 1
    for value in graph.outputs.values():
        readers[value.name] = readers.get(value.name, 0) + 1
    kept: list[Operation] = []
    by_output: dict[str, int] = {}  # of convolutions, the place in `kept`
    constants = dict(graph.constants)
    for operation in graph.operations:
        place = by_output.get(operation.inputs[0]) if operation.inputs else None
        values = constants.get(operation.inputs[1]) if len(operation.inputs) == 2 else None
        if place is None or values is None or readers[operation.inputs[0]] > 1 or operation.kind not in ("Mul", "Add"):
            if operation.kind == "Conv" and operation.inputs[1] in constants:
                by_output[operation.outputs[0]] = len(kept)
            kept.append(operation)
            continue
        conv = kept[place]
        channels = _by_channel(values, constants[conv.inputs[1]])
        if channels is None:
            kept.append(operation)
            continue
        kept[place] = _fold(conv, operation, channels, constants)
        by_output[operation.outputs[0]] = place
    return pruned(replace(graph, operations=kept, constants=constants))


def _by_channel(values: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """One number a channel, if that is what the operand holds: a scalar or (1, C, 1, ...)."""
    channels, axes = weights.shape[0], weights.ndim
    shape = (1,) * (axes - values.ndim) + values.shape
    if values.ndim > axes or shape not in ((1,) * axes, (1, channels) + (1,) * (axes - 2)):
        return None
    return np.broadcast_to(values.astype(np.float64).reshape(-1), (channels,)).copy()


def _fold(
    conv: Operation, follower: Operation, channels: NDArray[np.float64], constants: dict[str, NDArray[np.float32]]
) -> Operation:
    weights, bias = conv.inputs[1], conv.inputs[2] if len(conv.inputs) > 2 else None
    new = f"{weights}_{follower.outputs[0]}"
    if follower.kind == "Mul":
        column = channels.reshape((-1,) + (1,) * (constants[weights].ndim - 1))
        constants[new] = (constants[weights] * column).astype(np.float32)
        weights = new
        if bias:
            constants[f"{new}_bias"] = (constants[bias] * channels).astype(np.float32)
    else:
        constants[f"{new}_bias"] = (channels + (constants[bias] if bias else 0.0)).astype(np.float32)
    has_bias = bias or follower.kind == "Add"
    inputs = (conv.inputs[0], weights, *([f"{new}_bias"] if has_bias else []))
    return replace(conv, inputs=inputs, outputs=follower.outputs)
