"""Layers that move values and compute none: Concat, Slice, Split, Flatten, Reshape, Crop, Tile (NAME_layer.cpp)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from pipeline.nets.graph.lowered import Lowered, Shape, Value
from pipeline.nets.layers.registry import Layer, register, text


@register("Concat")
class Concat(Layer):
    bottoms = (1, None)

    def is_shared(self) -> bool:
        return len(self.spec.bottom) == 1

    def along(self, bottom: Shape) -> int:
        p = self.spec.concat_param
        if p.HasField("axis") and p.HasField("concat_dim"):
            raise self.refuse("has axis and concat_dim", "keep axis")
        return self.axis(p.concat_dim if p.HasField("concat_dim") else p.axis, bottom)

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        first, axis = bottoms[0], self.along(bottoms[0])
        for index, bottom in enumerate(bottoms[1:], 1):
            same = len(bottom) == len(first) and all(
                a == b for i, (a, b) in enumerate(zip(first, bottom, strict=True)) if i != axis
            )
            if not same:
                raise self.refuse(
                    f"all inputs must have the same shape, except at axis {axis}: "
                    f"bottom[0] is {text(first)}, bottom[{index}] {text(bottom)}"
                )
        return [(*first[:axis], sum(bottom[axis] for bottom in bottoms), *first[axis + 1 :])]

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return self.along(bottoms[0]) > 0

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        out = self.shapes([bottom.shape for bottom in bottoms])[0]
        return [graph("Concat", bottoms, out, axis=self.along(bottoms[0].shape))]


@register("Slice")
class Slice(Layer):
    tops = (1, None)

    def is_shared(self) -> bool:
        return len(self.spec.top) == 1

    def along(self, bottom: Shape) -> int:
        p = self.spec.slice_param
        if p.HasField("axis") and p.HasField("slice_dim"):
            raise self.refuse("has axis and slice_dim", "keep axis")
        return self.axis(p.slice_dim if p.HasField("slice_dim") else p.axis, bottom)

    def sizes(self, bottom: Shape) -> list[int]:
        points, tops, whole = list(self.spec.slice_param.slice_point), len(self.spec.top), bottom[self.along(bottom)]
        if not points:
            if whole % tops:
                raise self.refuse(
                    f"{tops} tops should evenly divide the axis that is sliced ({whole})", "give slice_point"
                )
            return [whole // tops] * tops
        if len(points) != tops - 1:
            raise self.refuse(f"has {len(points)} slice_point for {tops} tops; it takes {tops - 1}")
        edges = [0, *points, whole]
        sizes = [b - a for a, b in itertools.pairwise(edges)]
        if any(size < 1 for size in sizes):
            raise self.refuse(f"slice_point {points} do not rise from 0 to {whole}")
        return sizes

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        bottom, axis = bottoms[0], self.along(bottoms[0])
        return [(*bottom[:axis], size, *bottom[axis + 1 :]) for size in self.sizes(bottom)]

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return self.along(bottoms[0]) > 0

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        x = bottoms[0]
        sizes = graph.constant(np.array(self.sizes(x.shape), np.int64))
        return graph.many("Split", [x, sizes], self.shapes([x.shape]), axis=self.along(x.shape))


@register("Split")
class Split(Layer):
    tops = (1, None)
    shares = True

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return bool(bottoms[0])

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [bottoms[0]] * len(self.spec.top)


@register("Silence")
class Silence(Layer):
    """Takes blobs that nobody else reads, so that they are not outputs."""

    bottoms = (1, None)
    tops = (0, 0)

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return []

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return True

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        return []


@register("Flatten")
class Flatten(Layer):
    shares = True

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return self.axis(self.spec.flatten_param.axis, bottoms[0]) > 0

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        p, bottom = self.spec.flatten_param, bottoms[0]
        first, last = self.axis(p.axis, bottom), self.axis(p.end_axis, bottom, "end_axis")
        if first > last:
            raise self.refuse(f"axis {first} is beyond end_axis {last}")
        return [(*bottom[:first], math.prod(bottom[first : last + 1]), *bottom[last + 1 :])]


@register("Reshape")
class Reshape(Layer):
    """The axes from `axis` on (`num_axes` of them) become `shape`: 0 keeps one, -1 takes what is left."""

    shares = True

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        p = self.spec.reshape_param
        return p.axis > 0 or (p.axis == 0 and p.num_axes == -1 and p.shape.dim[:1] == [0])

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        p, bottom = self.spec.reshape_param, bottoms[0]
        wanted = list(p.shape.dim)
        if sum(size == -1 for size in wanted) > 1 or any(size < -1 for size in wanted):
            raise self.refuse(f"its shape {wanted} may hold one -1 and no other negative number")
        first = p.axis if p.axis >= 0 else len(bottom) + p.axis + 1
        if not 0 <= first <= len(bottom):
            raise self.refuse(f"axis {p.axis} is out of range for the bottom {text(bottom)}")
        last = len(bottom) if p.num_axes == -1 else first + p.num_axes
        if p.num_axes < -1 or last > len(bottom):
            raise self.refuse(f"num_axes {p.num_axes} goes beyond the bottom {text(bottom)}")
        middle = []
        for index, size in enumerate(wanted):
            if size == 0 and first + index >= len(bottom):
                raise self.refuse(f"dimension {index} of its shape copies an axis that {text(bottom)} has not")
            middle.append(bottom[first + index] if size == 0 else size)
        known = math.prod(size for size in middle if size != -1) * math.prod(bottom[:first]) * math.prod(bottom[last:])
        count = math.prod(bottom)
        if -1 in middle:
            if not known or count % known:
                raise self.refuse(f"the bottom count {count} is not divisible by the other dimensions' product {known}")
            middle[middle.index(-1)] = count // known
        out = (*bottom[:first], *middle, *bottom[last:])
        if math.prod(out) != count:
            raise self.refuse(f"output count must match input count: {text(out)} from {text(bottom)}")
        return [out]


@register("Crop")
class Crop(Layer):
    """The first bottom cut to the second's size, from `axis` on, beginning at `offset`."""

    bottoms = (2, 2)

    def starts(self, bottom: Shape) -> list[int]:
        axis, offsets = self.axis(self.spec.crop_param.axis, bottom), self.spec.crop_param.offset
        cropped = len(bottom) - axis
        if len(offsets) > 1 and len(offsets) != cropped:
            raise self.refuse(f"has {len(offsets)} offsets for {cropped} cropped axes")
        return [0] * axis + (list(offsets) if len(offsets) > 1 else [offsets[0] if offsets else 0] * cropped)

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        bottom, wanted = bottoms
        axis, starts = self.axis(self.spec.crop_param.axis, bottom), self.starts(bottom)
        if len(wanted) < len(bottom):
            raise self.refuse(f"its bottoms differ in axes: {text(bottom)} and {text(wanted)}")
        for index in range(axis, len(bottom)):
            if bottom[index] - starts[index] < wanted[index]:
                raise self.refuse(
                    f"the crop for dimension {index} is out of bounds with size {wanted[index]} and "
                    f"offset {starts[index]} (the bottom has {bottom[index]})"
                )
        return [(*bottom[:axis], *wanted[axis : len(bottom)])]

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return self.axis(self.spec.crop_param.axis, bottoms[0]) > 0

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        x = bottoms[0]
        out = self.shapes([bottom.shape for bottom in bottoms])[0]
        starts = np.array(self.starts(x.shape), np.int64)
        return [graph("Slice", [x, graph.constant(starts), graph.constant(starts + np.array(out))], out)]


@register("Tile")
class Tile(Layer):
    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        p, bottom = self.spec.tile_param, bottoms[0]
        if not p.HasField("tiles") or p.tiles < 1:
            raise self.refuse("number of tiles must be positive", "set tiles")
        axis = self.axis(p.axis, bottom)
        return [(*bottom[:axis], bottom[axis] * p.tiles, *bottom[axis + 1 :])]

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return self.axis(self.spec.tile_param.axis, bottoms[0]) > 0

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        x, out = bottoms[0], self.shapes([bottoms[0].shape])[0]
        repeats = np.array(out, np.int64) // np.array(x.shape, np.int64)
        return [graph("Tile", [x, graph.constant(repeats)], out)]
