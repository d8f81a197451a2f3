"""A lowered graph as torch operations on one device, in one precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.nets.engines.torch_operations import OPERATIONS
from pipeline.nets.graph.lowered import Lowered, Operation


class Program:
    """Fed float32 tensors by input name, on any device; gives float32 tensors by blob, C order.

    inputs: what it is fed.  It reads nothing back from the device, so that a GPU can record it.
    """

    def __init__(self, graph: Lowered, device: torch.device, dtype: torch.dtype) -> None:
        self.inputs = tuple(graph.inputs)
        self.device, self.dtype = device, dtype
        self._operations = graph.operations
        self._wanted = {blob: value.name for blob, value in graph.outputs.items()}
        numbers = read_as_numbers(graph)
        self._constants: dict[str, Any] = {
            name: array.tolist() if name in numbers else self._placed(array) for name, array in graph.constants.items()
        }
        self._done = _last_uses(graph)

    def __call__(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = {**self._constants, **{name: self._fed(feeds[name]) for name in self.inputs}}
        for number, operation in enumerate(self._operations):
            _compute(operation, values)
            for name in self._done.get(number, ()):
                del values[name]
        return {blob: values[name].float().contiguous() for blob, name in self._wanted.items()}

    def _placed(self, array: NDArray[np.float32] | NDArray[np.int64]) -> Tensor:
        tensor = torch.from_numpy(np.array(array)).to(self.device)
        return tensor if array.dtype == np.int64 else _laid(tensor.to(self.dtype))

    def _fed(self, tensor: Tensor) -> Tensor:
        """Images in the net's precision; what is no image may hold numbers of classes or words, and stays exact."""
        tensor = tensor.to(self.device)
        return _laid(tensor.to(self.dtype) if tensor.ndim == 4 else tensor)


def read_as_numbers(graph: Lowered) -> set[str]:
    """The constants that operations read as shapes, axes and counts: they are no tensors."""
    return {
        name
        for operation in (*graph.preparations, *graph.operations)
        for place, name in enumerate(operation.inputs)
        if place in _NUMBERS.get(operation.kind, ())
    }


_NUMBERS = {"Expand": (1,), "Pad": (1, 2), "ReduceSum": (1,), "Reshape": (1,), "Slice": (1, 2, 3, 4), "Split": (1,),
            "Tile": (1,), "TopK": (1,)}  # fmt: skip


def _laid(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _compute(operation: Operation, values: dict[str, Any]) -> None:
    found = OPERATIONS[operation.kind]([values[name] for name in operation.inputs], operation.attributes)
    outputs = [found] if isinstance(found, Tensor) else found
    values.update(zip(operation.outputs, outputs, strict=True))


def _last_uses(graph: Lowered) -> dict[int, list[str]]:
    """After which operation each computed value is needed no more."""
    kept = {value.name for value in graph.outputs.values()}
    last: dict[str, int] = {}
    for number, operation in enumerate(graph.operations):
        for name in (*operation.outputs, *operation.inputs):
            if name in graph.shapes and name not in kept:
                last[name] = number
    found: dict[int, list[str]] = {}
    for name, number in last.items():
        found.setdefault(number, []).append(name)
    return found
