"""LRN across channels as a 1x1 convolution of squares with a banded matrix: the same sum, in kernels that are fast."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.nets.graph.lowered import Lowered, Operation, Value


def banded(graph: Lowered) -> Lowered:
    """The graph with each LRN operation written as x (bias + band * x^2) ^ -beta."""
    result = replace(graph, operations=[], constants=dict(graph.constants), shapes=dict(graph.shapes))
    for operation in graph.operations:
        if operation.kind == "LRN":
            _write(result, operation, graph.shapes[operation.outputs[0]])
        else:
            result.operations.append(operation)
    return result


def _write(graph: Lowered, operation: Operation, shape: tuple[int, ...]) -> None:
    a, channels = operation.attributes, shape[1]
    reach = (a["size"] - 1) // 2
    near = np.abs(np.subtract.outer(np.arange(channels), np.arange(channels))) <= reach
    band = (near * (a["alpha"] / a["size"])).astype(np.float32).reshape(channels, channels, 1, 1)
    x = Value(operation.inputs[0], shape)
    bias = graph.constant(np.full(channels, a["bias"], np.float32))
    inner = graph("Conv", [graph.mul(x, x), graph.constant(band), bias], shape, kernel_shape=[1, 1])
    if a["beta"] == 0.75:  # two square roots cost less than a power
        root = graph("Sqrt", [inner], shape)
        under = graph.mul(root, graph("Sqrt", [root], shape))
    else:
        under = graph("Pow", [inner, graph.constant(float(a["beta"]))], shape)
    graph.operations.append(Operation("Div", (x.name, under.name), operation.outputs, {}))
