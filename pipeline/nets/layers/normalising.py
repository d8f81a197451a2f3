"""LRN, BatchNorm, MVN and Softmax (src/caffe/layers/NAME_layer.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.codec import caffe_pb2
from pipeline.nets.graph.lowered import FLOAT32, FLOAT64, Lowered, Shape, Value
from pipeline.nets.layers.pointwise import raised
from pipeline.nets.layers.pooling import AVE, Pool
from pipeline.nets.layers.registry import Layer, Parameter, filler, register


class _SameShape(Layer):
    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [bottoms[0]]


@register("LRN")
class LRN(_SameShape):
    """x / (k + alpha/n sum of squares of n neighbouring channels) ^ beta, or of n x n neighbouring places."""

    def in_place_is_right(self) -> bool:
        return self.spec.lrn_param.norm_region == caffe_pb2.LRNParameter.WITHIN_CHANNEL

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        size = self.spec.lrn_param.local_size
        if size % 2 == 0:
            raise self.refuse(f"LRN only supports odd values for local_size, not {size}")
        if len(bottoms[0]) != 4:
            raise self.refuse(f"its bottom must have 4 axes, not {len(bottoms[0])}")
        return [bottoms[0]]

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return True

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        p, x = self.spec.lrn_param, bottoms[0]
        if p.norm_region == caffe_pb2.LRNParameter.ACROSS_CHANNELS:
            return [graph("LRN", [x], x.shape, size=p.local_size, alpha=p.alpha, beta=p.beta, bias=p.k)]
        pad = (p.local_size - 1) // 2
        pool = Pool(AVE, (p.local_size,) * 2, (1, 1), (pad, pad))
        if any(pool.size(x.shape)[axis] != x.shape[2 + axis] for axis in (0, 1)):
            raise self.refuse("within a channel, the window is too large for its input")
        inner = graph.add(graph.mul(pool.lower(graph, graph.mul(x, x)), p.alpha), 1.0)
        return [graph.mul(x, raised(graph, inner, -p.beta))]


@register("BatchNorm")
class BatchNorm(_SameShape):
    """(x - mean) / sqrt(variance + eps), of the stored statistics or of the batch's own.

    Stored: blobs 0 and 1 hold sums, blob 2 what to divide them by (0: the statistics count as 0).
    """

    in_place = True

    def _channels(self, bottom: Shape) -> int:
        return bottom[1] if len(bottom) > 1 else 1

    def _stored(self) -> bool:
        p = self.spec.batch_norm_param
        return p.use_global_stats if p.HasField("use_global_stats") else not self.state.train

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        if not bottoms[0]:
            raise self.refuse("its bottom has no axes")
        if len(self.spec.param) != 3 and any(spec.lr_mult != 0 for spec in self.spec.param):
            raise self.refuse(
                "cannot configure batch normalization statistics as layer parameters",
                "set lr_mult: 0 in each of its param, or leave them out",
            )
        channels = (self._channels(bottoms[0]),)
        return [Parameter(channels, filler()), Parameter(channels, filler()), Parameter((1,), filler())]

    def complete(self, spec: caffe_pb2.LayerParameter) -> None:
        """No solver moves its blobs."""
        for _ in range(len(spec.param), 3):
            spec.param.add(lr_mult=0)

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return self._stored()

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        x, eps = bottoms[0], self.spec.batch_norm_param.eps
        ones = (1,) * max(0, len(x.shape) - 2)
        if self._stored():
            shape = (1, self._channels(x.shape), *ones) if len(x.shape) > 1 else (1,)
            shift, factor = (graph.reshape(one, shape) for one in _statistics(graph, parameters, eps))
            return [graph.mul(graph.add(x, shift), factor)]
        axes = [axis for axis in range(len(x.shape)) if axis != 1]
        small = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
        mean_value = graph("ReduceMean", [x], small, axes=axes, keepdims=1)
        centred = graph("Sub", [x, mean_value], x.shape)
        spread = graph("ReduceMean", [graph.mul(centred, centred)], small, axes=axes, keepdims=1)
        return [graph("Div", [centred, graph("Sqrt", [graph.add(spread, eps)], small)], x.shape)]


def _statistics(graph: Lowered, blobs: Sequence[Value], eps: float) -> list[Value]:
    """What is added to each channel, and what the sum is multiplied with.  In float64: the blobs hold large sums."""
    mean, variance, count = (graph("Cast", [blob], blob.shape, to=FLOAT64) for blob in blobs)
    zero, one = graph.double(0.0), graph.double(1.0)
    share = graph("Where", [graph("Equal", [count, zero], (1,)), zero, graph("Div", [one, count], (1,))], (1,))
    spread = graph.add(graph.mul(variance, share), graph.double(eps))
    shift = graph.mul(graph("Neg", [mean], mean.shape), share)
    factor = graph("Div", [one, graph("Sqrt", [spread], spread.shape)], spread.shape)
    return [graph("Cast", [value], value.shape, to=FLOAT32) for value in (shift, factor)]


@register("MVN")
class MVN(_SameShape):
    """(x - mean) / (standard deviation + eps) over each channel's places, or over the whole item."""

    in_place = True

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return True

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        p, x = self.spec.mvn_param, bottoms[0]
        groups = math.prod(x.shape[: 1 if p.across_channels else 2])
        flat = graph.reshape(x, (groups, math.prod(x.shape) // groups))
        mean = graph("ReduceMean", [flat], (groups, 1), axes=[1], keepdims=1)
        y = graph("Sub", [flat, mean], flat.shape)
        if p.normalize_variance:
            spread = graph("ReduceMean", [graph.mul(y, y)], (groups, 1), axes=[1], keepdims=1)
            y = graph("Div", [y, graph.add(graph("Sqrt", [spread], (groups, 1)), p.eps)], flat.shape)
        return [graph.reshape(y, x.shape)]


@register("Softmax")
class Softmax(_SameShape):
    in_place = True

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.axis(self.spec.softmax_param.axis, bottoms[0])
        return [bottoms[0]]

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return self.axis(self.spec.softmax_param.axis, bottoms[0]) > 0

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        axis = self.axis(self.spec.softmax_param.axis, bottoms[0].shape)
        return [graph("Softmax", [bottoms[0]], bottoms[0].shape, axis=axis)]
