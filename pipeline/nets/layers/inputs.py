"""Layers without bottoms: Input, MemoryData, DummyData, Parameter, and data layers that a trainer feeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.codec import caffe_pb2
from pipeline.nets.graph.fillers import fill, is_random
from pipeline.nets.graph.lowered import Lowered, Shape, Value
from pipeline.nets.layers.registry import Layer, Parameter, State, filler, register


class Source(Layer):
    """Its tops are fed by whoever runs the net."""

    bottoms = (0, 0)

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return True


class Fed(Source):
    """A data layer whose batches a program makes: it says what shape each top has."""

    tops = (1, None)

    def __init__(self, spec: caffe_pb2.LayerParameter, state: State, tops: Mapping[str, Shape]) -> None:
        super().__init__(spec, state)
        self._tops = tops

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        lacking = [top for top in self.spec.top if top not in self._tops]
        if lacking:
            raise self.refuse(f"nothing gives its top '{lacking[0]}'")
        return [self._tops[top] for top in self.spec.top]


@register("Input")
class Input(Source):
    tops = (1, None)

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        given = self.spec.input_param.shape
        if not given:
            raise self.refuse("has no shape", "add input_param { shape { dim: ... } }")
        if len(given) not in (1, len(self.spec.top)):
            raise self.refuse(f"has {len(given)} shapes for {len(self.spec.top)} tops", "give one, or one for each top")
        shapes = [tuple(shape.dim) for shape in given]
        for shape in shapes:
            if any(size < 1 for size in shape):
                raise self.refuse(f"dimensions must be positive: {' '.join(map(str, shape))}")
        return shapes if len(shapes) == len(self.spec.top) else shapes * len(self.spec.top)


@register("MemoryData")
class MemoryData(Source):
    """Images and labels that a program hands over."""

    tops = (2, 2)

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        p = self.spec.memory_data_param
        shape = (p.batch_size, p.channels, p.height, p.width)
        if any(size < 1 for size in shape):
            raise self.refuse("batch_size, channels, height and width must be specified and positive")
        return [shape, (p.batch_size,)]


@register("DummyData")
class DummyData(Layer):
    bottoms = (0, 0)
    tops = (1, None)

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        p, tops = self.spec.dummy_data_param, len(self.spec.top)
        old = [p.num, p.channels, p.height, p.width]
        if p.shape:
            if any(old):
                raise self.refuse("has shape as well as num, channels, height and width")
            shapes = [tuple(shape.dim) for shape in p.shape]
        else:
            if len({len(sizes) for sizes in old}) != 1:
                raise self.refuse("num, channels, height and width must be given equally often")
            shapes = list(zip(*old, strict=True))
        if len(shapes) not in (1, tops):
            raise self.refuse(f"has {len(shapes)} shapes for {tops} tops")
        if len(p.data_filler) not in (0, 1, tops):
            raise self.refuse(f"has {len(p.data_filler)} fillers for {tops} tops")
        return shapes if len(shapes) == tops else shapes * tops

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        fillers: list[caffe_pb2.FillerParameter] = list(self.spec.dummy_data_param.data_filler) or [filler()]
        values: list[Value] = []
        for index, shape in enumerate(self.shapes([])):
            how = fillers[index if len(fillers) > 1 else 0]
            if is_random(how):
                self.state.warn(f"layer '{self.name}' (DummyData): random values, the same in each run")
            values.append(graph.constant(fill(how, shape, f"{self.name}/{index}")))
        return values


@register("Parameter")
class ParameterLayer(Layer):
    """A learned blob as a top."""

    bottoms = (0, 0)

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        return [Parameter(tuple(self.spec.parameter_param.shape.dim), filler())]

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [self.parameters([])[0].shape]

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        return list(parameters)
