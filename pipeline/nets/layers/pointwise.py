"""Layers that treat each value by itself (src/caffe/layers/NAME_layer.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.nets.graph.lowered import Lowered, Shape, Value
from pipeline.nets.layers.registry import Layer, Parameter, filler, register, text


class Pointwise(Layer):
    """One value in, one value out; right in place."""

    in_place = True

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [bottoms[0]]

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return bool(bottoms[0])

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        return [self.each(graph, bottoms[0])]

    def each(self, graph: Lowered, x: Value) -> Value:
        raise NotImplementedError


@register("ReLU")
class ReLU(Pointwise):
    """max(x, 0) + negative_slope min(x, 0)."""

    def each(self, graph: Lowered, x: Value) -> Value:
        slope = self.spec.relu_param.negative_slope
        return graph("LeakyRelu", [x], x.shape, alpha=slope) if slope else graph("Relu", [x], x.shape)


@register("ELU")
class ELU(Pointwise):
    """x for x > 0, else alpha (exp(x) - 1)."""

    def each(self, graph: Lowered, x: Value) -> Value:
        return graph("Elu", [x], x.shape, alpha=self.spec.elu_param.alpha)


@register("Sigmoid")
class Sigmoid(Pointwise):
    def each(self, graph: Lowered, x: Value) -> Value:
        return graph("Sigmoid", [x], x.shape)


@register("TanH")
class TanH(Pointwise):
    def each(self, graph: Lowered, x: Value) -> Value:
        return graph("Tanh", [x], x.shape)


@register("AbsVal")
class AbsVal(Pointwise):
    def each(self, graph: Lowered, x: Value) -> Value:
        return graph("Abs", [x], x.shape)


@register("BNLL")
class BNLL(Pointwise):
    """log(1 + exp(x)), written as max(x, 0) + log(1 + exp(-|x|)) so that it never overflows."""

    def each(self, graph: Lowered, x: Value) -> Value:
        small = graph("Exp", [graph("Neg", [graph("Abs", [x], x.shape)], x.shape)], x.shape)
        return graph.add(graph("Relu", [x], x.shape), graph("Log", [graph.add(small, 1.0)], x.shape))


@register("Swish")
class Swish(Pointwise):
    """x sigmoid(beta x)."""

    def each(self, graph: Lowered, x: Value) -> Value:
        beta = self.spec.swish_param.beta
        inner = x if beta == 1 else graph.mul(x, beta)
        return graph.mul(x, graph("Sigmoid", [inner], x.shape))


@register("Clip")
class Clip(Pointwise):
    def each(self, graph: Lowered, x: Value) -> Value:
        p = self.spec.clip_param
        return graph("Clip", [x, graph.constant(p.min), graph.constant(p.max)], x.shape)


@register("Threshold")
class Threshold(Pointwise):
    """1 where x > threshold, else 0."""

    def each(self, graph: Lowered, x: Value) -> Value:
        over = graph("Greater", [x, graph.constant(self.spec.threshold_param.threshold)], x.shape)
        return graph("Cast", [over], x.shape, to=1)


@register("Dropout")
class Dropout(Pointwise):
    """The identity: what it drops is scaled up in training, so nothing is left to do."""

    def each(self, graph: Lowered, x: Value) -> Value:
        if self.state.train:
            self.state.warn(f"layer '{self.name}' (Dropout): nothing is dropped, also in the TRAIN phase")
        return x


@register("Power")
class Power(Pointwise):
    """(shift + scale x) ^ power."""

    def each(self, graph: Lowered, x: Value) -> Value:
        p = self.spec.power_param
        if p.power * p.scale == 0:
            constant = 1.0 if p.power == 0 else math.pow(p.shift, p.power)
            return graph.add(graph.mul(x, 0.0), constant) if not x.shape else self._constant(graph, x, constant)
        y = x if p.scale == 1 else graph.mul(x, p.scale)
        y = y if p.shift == 0 else graph.add(y, p.shift)
        return raised(graph, y, p.power)

    def _constant(self, graph: Lowered, x: Value, value: float) -> Value:
        shape = graph.constant(np.array(x.shape, np.int64))
        return graph("Expand", [graph.constant(value), shape], x.shape)


def raised(graph: Lowered, x: Value, power: float) -> Value:
    """x ^ power as C's pow has it: an integer power of a negative number is a number, a fractional one NaN."""
    if power == 1:
        return x
    if power in (2, 3, 4):
        square = graph.mul(x, x)
        return square if power == 2 else graph.mul(square, x if power == 3 else square)
    if power in (0.5, -0.5):
        root = graph("Sqrt", [x], x.shape)
        return root if power > 0 else graph("Div", [graph.constant(1.0), root], x.shape)
    if power in (-1, -2):
        return graph("Div", [graph.constant(1.0), x if power == -1 else graph.mul(x, x)], x.shape)
    return graph("Pow", [x, graph.constant(power)], x.shape)


def _log_base(layer: Layer, base: float) -> float:
    if base == -1:
        return 1.0
    if base <= 0:
        raise layer.refuse(f"base must be positive, not {base:g}", "-1, the default, stands for e")
    return math.log(base)


@register("Exp")
class Exp(Pointwise):
    """base ^ (shift + scale x)."""

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        _log_base(self, self.spec.exp_param.base)
        return [bottoms[0]]

    def each(self, graph: Lowered, x: Value) -> Value:
        p = self.spec.exp_param
        log_base = _log_base(self, p.base)
        inner, outer = p.scale * log_base, math.exp(p.shift * log_base)
        y = graph("Exp", [x if inner == 1 else graph.mul(x, inner)], x.shape)
        return y if outer == 1 else graph.mul(y, outer)


@register("Log")
class Log(Pointwise):
    """log_base(shift + scale x)."""

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if self.spec.log_param.base != -1 and _log_base(self, self.spec.log_param.base) == 0:
            raise self.refuse("base must not be 1")
        return [bottoms[0]]

    def each(self, graph: Lowered, x: Value) -> Value:
        p = self.spec.log_param
        y = x if p.scale == 1 else graph.mul(x, p.scale)
        y = graph("Log", [y if p.shift == 0 else graph.add(y, p.shift)], x.shape)
        return y if p.base == -1 else graph.mul(y, 1.0 / _log_base(self, p.base))


@register("PReLU")
class PReLU(Pointwise):
    """max(x, 0) + a min(x, 0), a learned for each channel or shared by all."""

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        p = self.spec.prelu_param
        if len(bottoms[0]) < 2:
            raise self.refuse(f"its bottom must have at least 2 axes: {text(bottoms[0])}")
        shape: Shape = () if p.channel_shared else (bottoms[0][1],)
        return [Parameter(shape, p.filler if p.HasField("filler") else filler(value=0.25))]

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        x, slope = bottoms[0], parameters[0]
        ones = (1,) * (len(x.shape) - 2)
        if not slope.shape:
            slope = graph("Expand", [slope, graph.constant([x.shape[1]])], (x.shape[1],))
        return [graph("PRelu", [x, graph.reshape(slope, (x.shape[1], *ones))], x.shape)]
