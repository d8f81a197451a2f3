"""One net in several shapes: Caffe reshapes a net for each batch, here each shape has a net of its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from pipeline.errors import NetError
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Shape

MOST = 32
"""Nets that are kept; the one that was asked for longest ago goes first."""
Net = TypeVar("Net")
Shapes = Mapping[str, Shape]


class Shaped(Generic[Net]):
    """Nets by the shapes of what they are fed, made when they are asked for first."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[tuple[str, Shape], ...], Net] = OrderedDict()

    def of(self, shapes: Shapes, make: Callable[[Shapes], Net]) -> Net:
        """Raises what making raises."""
        key = tuple(sorted(shapes.items()))
        if key not in self._made:
            self._made[key] = make(shapes)
            if len(self._made) > MOST:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return self._made[key]


def demand_same_blobs(graph: CaffeGraph, other: CaffeGraph) -> None:
    """Raises NetError where a learned blob of the same layers has another shape in `other`: InnerProduct's has."""
    for slot, shape in graph.parameters.shapes.items():
        wanted = other.parameters.shapes[slot]
        if shape != wanted:
            layer = graph.plan.steps[slot.step].layer.name
            says = f"blob {slot.blob} of layer '{layer}' is {shape}, and would have to be {wanted} for another size"
            hint = "give images a crop_size, or new_height and new_width; a convolution in its place takes any size"
            raise NetError(f"the net {graph.name} takes images of one size alone", says, hint)
