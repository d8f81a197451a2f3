"""Gives the learned blobs of a graph their values: what engines compile for inference has constants in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import NetError
from pipeline.nets.graph.lowered import FLOAT32, FLOAT64, Learned, Lowered, Slot, pruned

_TYPES = {FLOAT32: np.float32, FLOAT64: np.float64}
_PREPARING: dict[str, Callable[[Sequence[NDArray[Any]], Mapping[str, Any]], NDArray[Any]]] = {
    "Add": lambda x, a: x[0] + x[1],
    "Cast": lambda x, a: x[0].astype(_TYPES[a["to"]]),
    "Div": lambda x, a: x[0] / x[1],
    "Equal": lambda x, a: x[0] == x[1],
    "Expand": lambda x, a: np.ascontiguousarray(np.broadcast_to(x[0], x[1])),
    "Mul": lambda x, a: x[0] * x[1],
    "Neg": lambda x, a: -x[0],
    "Reshape": lambda x, a: x[0].reshape(x[1]),
    "Sqrt": lambda x, a: np.sqrt(x[0]),
    "Where": lambda x, a: np.where(x[0], x[1], x[2]),
}
"""What layers do to their learned blobs before they use them.  ONNX's operations in numpy; no type is changed."""


def bound(graph: Lowered, values: Mapping[Slot, NDArray[np.float32]]) -> Lowered:
    """The same graph for these values of its learned blobs: what depends on them alone is computed here, once.

    values: float32, of the shape that each blob has; those of blobs that the graph does not read have no part.
    Raises NetError for a blob without values, or with others than its shape takes.
    """
    graph = pruned(graph)
    constants = graph.constants
    for name, blob in graph.learned.items():
        constants[name] = _fitting(blob, values.get(blob.slot))
    with np.errstate(all="ignore"):  # a variance below zero, say: NaN then, as in every engine
        for operation in graph.preparations:
            inputs = [constants[name] for name in operation.inputs]
            constants[operation.outputs[0]] = np.asarray(_PREPARING[operation.kind](inputs, operation.attributes))
    shapes = {name: shape for name, shape in graph.shapes.items() if name not in constants}
    return pruned(replace(graph, learned={}, preparations=[], constants=constants, shapes=shapes))


def _fitting(blob: Learned, values: NDArray[np.float32] | None) -> NDArray[np.float32]:
    what = f"blob {blob.slot.blob} of layer '{blob.layer}'"
    if values is None:
        raise NetError(f"{what} has no values", f"its shape is {blob.shape}")
    if values.shape != blob.shape or values.dtype != np.float32:
        raise NetError(f"{what} takes other values", f"{blob.shape} float32, not {values.shape} {values.dtype}")
    return values
