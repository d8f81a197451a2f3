"""InnerProduct and Embed: a matrix times each item, or its rows by number."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.nets.graph.lowered import Lowered, Shape, Value
from pipeline.nets.layers.registry import Layer, Parameter, register


@register("InnerProduct")
class InnerProduct(Layer):
    """All axes from `axis` on, flattened, times the weights (inner_product_layer.cpp)."""

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        axis = self.axis(self.spec.inner_product_param.axis, bottoms[0])
        return [(*bottoms[0][:axis], self.spec.inner_product_param.num_output)]

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        p = self.spec.inner_product_param
        if p.num_output < 1:
            raise self.refuse("num_output must be positive")
        inputs = math.prod(bottoms[0][self.axis(p.axis, bottoms[0]) :])
        shape = (inputs, p.num_output) if p.transpose else (p.num_output, inputs)
        weights = Parameter(shape, p.weight_filler)
        return [weights, Parameter((p.num_output,), p.bias_filler)] if p.bias_term else [weights]

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return self.axis(self.spec.inner_product_param.axis, bottoms[0]) > 0

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        p, x, out = self.spec.inner_product_param, bottoms[0], self.shapes([bottoms[0].shape])[0]
        rows = math.prod(out[:-1])
        flat = graph.reshape(x, (rows, math.prod(x.shape) // rows))
        top = graph("Gemm", [flat, *parameters], (rows, p.num_output), transB=0 if p.transpose else 1)
        return [graph.reshape(top, out)]

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return math.prod(tops[0][:-1]) * math.prod(self.parameters(bottoms)[0].shape)


@register("Embed")
class Embed(Layer):
    """Row number x of the weights, for each x (embed_layer.cpp)."""

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [(*bottoms[0], self.spec.embed_param.num_output)]

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        p = self.spec.embed_param
        if p.num_output < 1 or p.input_dim < 1:
            raise self.refuse("num_output and input_dim must be positive")
        weights = Parameter((p.input_dim, p.num_output), p.weight_filler)
        return [weights, Parameter((p.num_output,), p.bias_filler)] if p.bias_term else [weights]

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return bool(bottoms[0])

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        weights, *bias = parameters
        index = graph("Cast", [bottoms[0]], bottoms[0].shape, to=7)
        top = graph("Gather", [weights, index], self.shapes([bottoms[0].shape])[0], axis=0)
        return [graph.add(top, bias[0]) if bias else top]
