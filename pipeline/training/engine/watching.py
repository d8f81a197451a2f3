"""Looks at a pass from within: the mean of each blob and gradient (debug_info), and the first that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Slot
from pipeline.training.engine.needs import LayerNeeds
from pipeline.training.network import Seen


def mean(values: Tensor) -> float:
    """Of the absolute values; 0 of none."""
    return float(values.detach().abs().mean()) if values.numel() else 0.0


def norms(values: Sequence[Tensor], gradients: Sequence[Tensor]) -> tuple[float, float, float, float]:
    """L1 of all values and of all gradients, L2 of both."""
    first = [sum(float(one.abs().sum()) for one in many) for many in (values, gradients)]
    second = [sum(float(one.square().sum()) for one in many) ** 0.5 for many in (values, gradients)]
    return (first[0], first[1], second[0], second[1])


class Watcher:
    """What `Program` is watched by: numbers by place, in the order in which they came.

    `order`: each (step, what, number) as it was seen first: the backward pass runs from the loss down.
    """

    def __init__(self) -> None:
        self.tops: dict[tuple[int, int], float] = {}
        self.bottom_gradients: dict[tuple[int, int], float] = {}
        self.top_gradients: dict[tuple[int, int], float] = {}

    def top(self, step: int, top: int, value: Tensor) -> None:
        self.tops[step, top] = mean(value)

    def bottom_gradient(self, step: int, bottom: int, gradient: Tensor) -> None:
        self.bottom_gradients[step, bottom] = mean(gradient)

    def top_gradient(self, step: int, top: int, gradient: Tensor) -> None:
        self.top_gradients[step, top] = mean(gradient)


Number = Callable[[Slot], float]


def forward_lines(graph: CaffeGraph, layers: Sequence[LayerNeeds], seen: Watcher, weight: Number) -> list[Seen]:
    """Net::ForwardDebugInfo: each layer's tops, then its learned blobs."""
    found: list[Seen] = []
    values: dict[str, float] = {}
    for one in layers:
        for index, blob in enumerate(one.spec.top or (["(automatic)"] if one.weights else [])):
            source = one.spec.bottom[0] if one.spec.bottom else ""
            values[blob] = seen.tops.get((one.step, index), values.get(source, 0.0))
            found.append(Seen(one.spec.name, "top", blob, values[blob]))
        found += _parameters(one, [True] * len(one.parameters), weight)
    return found


def backward_lines(graph: CaffeGraph, layers: Sequence[LayerNeeds], seen: Watcher, gradient: Number) -> list[Seen]:
    """Net::BackwardDebugInfo, from the last layer: the bottoms and learned blobs that got a gradient."""
    found: list[Seen] = []
    makers = _makers(layers)
    for index in reversed(range(len(layers))):
        one = layers[index]
        if not one.backward:
            continue
        for number, (blob, has) in enumerate(zip(one.spec.bottom, one.bottoms, strict=True)):
            if has:
                value = seen.bottom_gradients.get((one.step, number), 0.0)
                if _shares(one):
                    value = seen.top_gradients.get(makers[index].get(blob, (-1, -1)), 0.0)
                found.append(Seen(one.spec.name, "bottom", blob, value))
        found += _parameters(one, one.parameters, gradient, named=False)
    return found


def _makers(layers: Sequence[LayerNeeds]) -> list[dict[str, tuple[int, int]]]:
    """For each layer, which step's top each blob is before it: of what shares memory, the one that computed it."""
    found: list[dict[str, tuple[int, int]]] = []
    made: dict[str, tuple[int, int]] = {}
    for one in layers:
        found.append(dict(made))
        for top, blob in enumerate(one.spec.top):
            made[blob] = made.get(one.spec.bottom[0], (-1, -1)) if _shares(one) else (one.step, top)
    return found


def _shares(one: LayerNeeds) -> bool:
    """Its tops are its bottom's memory: nothing is computed, and nobody hears of a gradient."""
    return one.step < 0 or one.spec.type in ("Split", "Flatten", "Reshape")


def _parameters(one: LayerNeeds, wanted: Sequence[bool], number: Number, named: bool = True) -> list[Seen]:
    """named: by the name that shares a blob, where there is one; Caffe's backward lines give its number alone."""
    spec, found = one.spec, []
    for blob in (at for at, has in enumerate(wanted) if has):
        name = spec.param[blob].name if named and blob < len(spec.param) else ""
        found.append(Seen(spec.name, "param", name or str(blob), number(Slot(one.step, blob))))
    return found


class NotFiniteFound(Exception):
    """Ends a pass at the first blob that is not finite."""

    def __init__(self, step: int, top: int, gradient: bool) -> None:
        super().__init__(step, top, gradient)
        self.step, self.number, self.gradient = step, top, gradient


class Finder:
    """Watches a pass and ends it at the first value, then the first gradient, that is NaN or infinite."""

    def top(self, step: int, top: int, value: Tensor) -> None:
        if not _finite(value):
            raise NotFiniteFound(step, top, False)

    def bottom_gradient(self, step: int, bottom: int, gradient: Tensor) -> None:
        if not _finite(gradient):
            raise NotFiniteFound(step, bottom, True)

    def top_gradient(self, step: int, top: int, gradient: Tensor) -> None:
        """What a layer gets from above was looked at there."""


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value.detach()).all())
