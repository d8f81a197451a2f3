"""ArgMax, Reduction, BatchReindex and Filter: fewer values, or some of the items (NAME_layer.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.amounts import counted
from pipeline.nets.graph.lowered import Lowered, Shape, Value
from pipeline.nets.layers.registry import Layer, register, text


@register("ArgMax")
class ArgMax(Layer):
    """The places (or the values, or both) of the top_k largest; of equal values the later place comes first."""

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        p, bottom = self.spec.argmax_param, bottoms[0]
        along = self._along(bottom)
        if not 1 <= p.top_k <= along:
            raise self.refuse(f"top_k {p.top_k} must be from 1 to the number of values, {along}")
        if p.HasField("axis"):
            axis = self.axis(p.axis, bottom)
            return [(*bottom[:axis], p.top_k, *bottom[axis + 1 :])]
        out = [bottom[0], 2 if p.out_max_val else 1, p.top_k, *[1] * max(0, len(bottom) - 3)]
        return [tuple(out)]

    def _along(self, bottom: Shape) -> int:
        p = self.spec.argmax_param
        return bottom[self.axis(p.axis, bottom)] if p.HasField("axis") else math.prod(bottom[1:])

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        p = self.spec.argmax_param
        return not p.HasField("axis") or self.axis(p.axis, bottoms[0]) > 0

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        p, x = self.spec.argmax_param, bottoms[0]
        out, along = self.shapes([x.shape])[0], self._along(x.shape)
        if not p.HasField("axis"):
            x = graph.reshape(x, (x.shape[0], along))
        axis = self.axis(p.axis, x.shape) if p.HasField("axis") else 1
        values, places = largest(graph, x, axis, p.top_k)
        if p.HasField("axis"):
            return [graph.reshape(values if p.out_max_val else places, out)]
        if not p.out_max_val:
            return [graph.reshape(places, out)]
        pair = [graph.reshape(one, (x.shape[0], 1, p.top_k)) for one in (places, values)]
        return [graph.reshape(graph("Concat", pair, (x.shape[0], 2, p.top_k), axis=1), out)]


def largest(graph: Lowered, x: Value, axis: int, count: int) -> tuple[Value, Value]:
    """The `count` largest along an axis, falling, and their places (as float32); the later of equals first.

    Turned round first, since TopK gives the earlier of equals first.
    """
    size = x.shape[axis]
    turned = graph("Gather", [x, graph.constant(np.arange(size)[::-1].copy())], x.shape, axis=axis)
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    values, places = graph.many("TopK", [turned, graph.constant(np.array([count]))], [shape, shape], axis=axis)
    places = graph("Cast", [places], shape, to=1)
    return values, graph("Sub", [graph.constant(float(size - 1)), places], shape)


@register("Reduction")
class Reduction(Layer):
    """SUM, ASUM, SUMSQ or MEAN over all axes from `axis` on, times coeff."""

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [bottoms[0][: self.axis(self.spec.reduction_param.axis, bottoms[0])]]

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return self.axis(self.spec.reduction_param.axis, bottoms[0]) > 0

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        p, x, out = self.spec.reduction_param, bottoms[0], self.shapes([bottoms[0].shape])[0]
        rows = math.prod(out)
        flat = graph.reshape(x, (rows, math.prod(x.shape) // rows))
        if p.operation == p.ASUM:
            flat = graph("Abs", [flat], flat.shape)
        elif p.operation == p.SUMSQ:
            flat = graph.mul(flat, flat)
        if p.operation == p.MEAN:
            top = graph("ReduceMean", [flat], (rows,), axes=[1], keepdims=0)
        else:
            top = graph("ReduceSum", [flat, graph.constant(np.array([1]))], (rows,), keepdims=0)
        top = graph.reshape(top, out)
        return [top if p.coeff == 1 else graph.mul(top, p.coeff)]


@register("BatchReindex")
class BatchReindex(Layer):
    """The items of the first bottom in the order that the second gives."""

    bottoms = (2, 2)

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if len(bottoms[1]) != 1:
            raise self.refuse(f"its second bottom must have one axis: {text(bottoms[1])}")
        return [(bottoms[1][0], *bottoms[0][1:])]

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        x, order = bottoms
        index = graph("Cast", [order], order.shape, to=7)
        return [graph("Gather", [x, index], self.shapes([x.shape, order.shape])[0], axis=0)]


@register("Filter")
class Filter(Layer):
    """The items whose number in the last bottom, the selector, is not 0.

    How many those are is known only once the selector is: `Net.forward` computes it first and sets their count.
    """

    bottoms = (2, None)
    tops = (1, None)

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        *data, selector = bottoms
        if len(data) != len(self.spec.top):
            raise self.refuse(f"has {len(data)} bottoms beside the selector for {len(self.spec.top)} tops")
        if math.prod(selector) != selector[0]:
            raise self.refuse(f"the selector must be one number an item: {text(selector)}")
        for index, bottom in enumerate(data):
            if bottom[0] != selector[0]:
                raise self.refuse(f"bottom[{index}] has {counted(bottom[0], 'item')}, the selector has {selector[0]}")
        return list(data)

    def lower_counted(self, graph: Lowered, bottoms: Sequence[Value], count: int) -> list[Value]:
        """The tops, `count` items each: earlier ones first, by the largest of (chosen x items - place)."""
        *data, selector = bottoms
        items = selector.shape[0]
        flat = graph.reshape(selector, (items,))
        none = graph("Cast", [graph("Equal", [flat, graph.constant(0.0)], (items,))], (items,), to=1)
        rank = graph.constant(np.arange(items, 0, -1, dtype=np.float32))
        key = graph("Sub", [rank, graph.mul(none, float(2 * items))], (items,))
        _, places = graph.many("TopK", [key, graph.constant(np.array([count]))], [(count,), (count,)], axis=0)
        return [graph("Gather", [x, places], (count, *x.shape[1:]), axis=0) for x in data]
