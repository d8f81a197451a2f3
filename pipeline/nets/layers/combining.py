"""Scale, Bias and Eltwise: a blob with numbers of its own, or with other blobs (NAME_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.codec import caffe_pb2
from pipeline.nets.graph.lowered import Lowered, Shape, Value
from pipeline.nets.layers.registry import Layer, Parameter, filler, register, text


class _Broadcast(Layer):
    """Scale and Bias: an operand that spans some axes of the first bottom, learned or the second bottom."""

    bottoms = (1, 2)
    in_place = True

    @property
    def p(self) -> caffe_pb2.ScaleParameter | caffe_pb2.BiasParameter:
        raise NotImplementedError

    def operand(self, bottoms: Sequence[Shape]) -> tuple[int, Shape]:
        """The first axis that it spans, and its shape."""
        first = bottoms[0]
        if len(bottoms) == 2:
            other = bottoms[1]
            axis = self.axis(self.p.axis, first) if other else 0
            if first[axis : axis + len(other)] != other:
                raise self.refuse(f"its second bottom {text(other)} does not match {text(first)} from axis {axis}")
            return axis, other
        axis, axes = self.axis(self.p.axis, first), self.p.num_axes
        if axes < -1:
            raise self.refuse(f"num_axes must not be under -1: {axes}")
        if axes >= 0 and axis + axes > len(first):
            raise self.refuse(f"axis {axis} and num_axes {axes} go beyond its bottom's {len(first)} axes")
        return axis, first[axis:] if axes == -1 else first[axis : axis + axes]

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.operand(bottoms)
        return [bottoms[0]]

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        axis, operand = self.operand(bottoms)
        return bool(operand) and axis == 0 if len(bottoms) == 2 else axis > 0 or not operand

    @staticmethod
    def spread(graph: Lowered, value: Value, axis: int, shape: Shape) -> Value:
        """The operand with ones for the axes that it does not span."""
        if not value.shape:
            return value
        return graph.reshape(value, (1,) * axis + value.shape + (1,) * (len(shape) - axis - len(value.shape)))


@register("Scale")
class Scale(_Broadcast):
    @property
    def p(self) -> caffe_pb2.ScaleParameter:
        return self.spec.scale_param

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        _, shape = self.operand(bottoms)
        found = []
        if len(bottoms) == 1:
            found.append(Parameter(shape, self.p.filler if self.p.HasField("filler") else filler(value=1.0)))
        if self.p.bias_term:
            found.append(Parameter(shape, self.p.bias_filler))
        return found

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        x = bottoms[0]
        axis, _ = self.operand([bottom.shape for bottom in bottoms])
        factor, *term = [self.spread(graph, one, axis, x.shape) for one in (*bottoms[1:], *parameters)]
        y = graph.mul(x, factor)
        return [graph.add(y, term[0]) if term else y]


@register("Bias")
class Bias(_Broadcast):
    @property
    def p(self) -> caffe_pb2.BiasParameter:
        return self.spec.bias_param

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        return [Parameter(self.operand(bottoms)[1], self.p.filler)] if len(bottoms) == 1 else []

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        x = bottoms[0]
        axis, _ = self.operand([bottom.shape for bottom in bottoms])
        term = [*bottoms[1:], *parameters][0]
        return [graph.add(x, self.spread(graph, term, axis, x.shape))]


@register("Eltwise")
class Eltwise(Layer):
    bottoms = (2, None)

    def in_place_is_right(self) -> bool:
        return self.spec.eltwise_param.operation == caffe_pb2.EltwiseParameter.PROD

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        p = self.spec.eltwise_param
        if p.coeff and len(p.coeff) != len(bottoms):
            raise self.refuse(f"takes one coefficient per bottom blob: {len(p.coeff)} for {len(bottoms)}")
        if p.coeff and p.operation == caffe_pb2.EltwiseParameter.PROD:
            raise self.refuse("only takes coefficients for summation, not for PROD")
        for index, bottom in enumerate(bottoms):
            if bottom != bottoms[0]:
                raise self.refuse(
                    f"its bottoms differ in shape: bottom[0]: {text(bottoms[0])}, bottom[{index}]: {text(bottom)}"
                )
        return [bottoms[0]]

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return bool(bottoms[0])

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        p, shape = self.spec.eltwise_param, bottoms[0].shape
        if p.operation == caffe_pb2.EltwiseParameter.SUM and p.coeff:
            bottoms = [b if c == 1 else graph.mul(b, c) for b, c in zip(bottoms, p.coeff, strict=True)]
        operations = {p.SUM: "Add", p.PROD: "Mul", p.MAX: "Max"}
        result = bottoms[0]
        for bottom in bottoms[1:]:
            result = graph(operations[p.operation], [result, bottom], shape)
        return [result]
