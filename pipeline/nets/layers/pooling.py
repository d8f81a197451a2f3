"""Pooling and SPP, with Caffe's rounding and clipping (src/caffe/layers/pooling_layer.cpp, spp_layer.cpp)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.codec import caffe_pb2
from pipeline.nets.graph.lowered import Lowered, Shape, Value
from pipeline.nets.layers.convolution import padded_with
from pipeline.nets.layers.registry import Layer, register

LOWEST = float(np.finfo(np.float32).min)  # -FLT_MAX: the MAX of a window that holds nothing
MAX, AVE, STOCHASTIC = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Pool:
    """One pooling, its numbers as (height, width)."""

    method: int
    kernel: Shape
    stride: Shape
    pad: Shape
    floor: bool = False

    def size(self, bottom: Shape) -> Shape:
        """Output height and width: rounded up unless `floor`; with padding, no window may begin in the far pad."""
        sizes = []
        for n, k, s, p in zip(bottom[2:], self.kernel, self.stride, self.pad, strict=True):
            out = (n + 2 * p - k) // s + 1 if self.floor else -(-(n + 2 * p - k) // s) + 1
            if any(self.pad) and (out - 1) * s >= n + p:
                out -= 1
            sizes.append(out)
        return tuple(sizes)

    def lower(self, graph: Lowered, bottom: Value) -> Value:
        out = self.size(bottom.shape)
        after = [
            max(0, (o - 1) * s + k - n - p)
            for o, s, k, n, p in zip(out, self.stride, self.kernel, bottom.shape[2:], self.pad, strict=True)
        ]
        shape = (*bottom.shape[:2], *out)
        whole = self.kernel == bottom.shape[2:] and out == (1, 1) and not any(self.pad)
        if self.method == AVE and whole:
            return graph("GlobalAveragePool", [bottom], shape)
        inside = all(a < k for a, k in zip(after, self.kernel, strict=True))
        pads = [*self.pad, *after]
        if not inside:  # a whole window lies outside, which the operation does not allow
            bottom = padded_with(graph, bottom, self.pad, after, LOWEST if self.method == MAX else 0.0)
            pads = [0, 0, 0, 0]
        window = {"kernel_shape": list(self.kernel), "strides": list(self.stride), "pads": pads}
        if self.method == MAX:
            return graph("MaxPool", [bottom], shape, **window)
        top = graph("AveragePool", [bottom], shape, count_include_pad=1, **window)
        heights, widths = (
            self._counts(n, o, axis)
            for axis, (n, o) in enumerate(zip(self._bottom_size(bottom.shape, inside, after), out, strict=True))
        )
        counts = np.outer(heights, widths)
        if (counts == math.prod(self.kernel)).all():
            return top
        with np.errstate(divide="ignore"):
            factor = (math.prod(self.kernel) / counts).astype(np.float32)
        return graph.mul(top, graph.constant(factor.reshape(1, 1, *out)))

    def _bottom_size(self, shape: Shape, inside: bool, after: Sequence[int]) -> Shape:
        if inside:
            return shape[2:]
        return tuple(n - p - a for n, p, a in zip(shape[2:], self.pad, after, strict=True))

    def _counts(self, n: int, out: int, axis: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """What AVE divides by along one axis: the window clipped at the far pad, its near pad counted."""
        start = np.arange(out) * self.stride[axis] - self.pad[axis]
        end = np.minimum(start + self.kernel[axis], n + self.pad[axis])
        return (end - start).astype(np.float64)

    def mask(self, graph: Lowered, bottom: Value) -> Value:
        """Where each MAX was found: row * width + column in the bottom's plane; the first of equals; -1 for none."""
        high, wide = bottom.shape[2:]
        out = self.size(bottom.shape)
        window = math.prod(self.kernel)
        index = np.full((window, *out), high * wide, np.int64)
        for place, (i, j) in enumerate(itertools.product(*map(range, self.kernel))):
            rows = np.arange(out[0]) * self.stride[0] - self.pad[0] + i
            columns = np.arange(out[1]) * self.stride[1] - self.pad[1] + j
            good = ((rows >= 0) & (rows < high))[:, None] & ((columns >= 0) & (columns < wide))
            index[place] = np.where(good, rows[:, None] * wide + columns, high * wide)
        flat = graph.reshape(bottom, (*bottom.shape[:2], 1, high * wide))
        flat = padded_with(graph, flat, (0, 0), (0, 1), LOWEST)
        flat = graph.reshape(flat, (*bottom.shape[:2], high * wide + 1))
        places = graph(
            "Gather",
            [flat, graph.constant(index.reshape(window, -1))],
            (*bottom.shape[:2], window, math.prod(out)),
            axis=2,
        )
        best = graph("ArgMax", [places], (*bottom.shape[:2], 1, math.prod(out)), axis=2, keepdims=1)
        where = np.where(index == high * wide, -1, index).reshape(1, 1, window, -1).astype(np.float32)
        spread = graph.constant(np.array([*bottom.shape[:2], window, math.prod(out)], np.int64))
        table = graph("Expand", [graph.constant(where), spread], places.shape)
        return graph.reshape(graph("GatherElements", [table, best], best.shape, axis=2), (*bottom.shape[:2], *out))


@register("Pooling")
class Pooling(Layer):
    tops = (1, 2)

    def pool(self, bottom: Shape) -> Pool:
        p = self.spec.pooling_param
        if len(bottom) != 4:
            raise self.refuse(f"its bottom must have 4 axes (num, channels, height, width), not {len(bottom)}")
        if p.pool == caffe_pb2.PoolingParameter.STOCHASTIC:
            raise self.refuse("STOCHASTIC pooling has no CPU code in Caffe", "MAX or AVE")
        kernel, pad = self._kernel(p, bottom), self._pair(p, "pad")
        if any(size < 1 for size in kernel):
            raise self.refuse("filter dimensions cannot be zero")
        stride = self._pair(p, "stride")
        if any(size < 1 for size in stride):
            raise self.refuse("stride must be positive")
        if p.global_pooling and (any(pad) or stride != (1, 1)):
            raise self.refuse("with global_pooling, pad must be 0 and stride 1")
        for side, k, size in zip(pad, kernel, ("height", "width"), strict=True):
            if any(pad) and side >= k:
                raise self.refuse(f"pad {side} must be less than the kernel {k} ({size})")
        self.check_padded(bottom[2:], pad)
        return Pool(p.pool, kernel, stride, pad, p.round_mode == caffe_pb2.PoolingParameter.FLOOR)

    def _kernel(self, p: caffe_pb2.PoolingParameter, bottom: Shape) -> Shape:
        if p.global_pooling:
            if p.HasField("kernel_size") or p.HasField("kernel_h") or p.HasField("kernel_w"):
                raise self.refuse("with global_pooling, the kernel size cannot be given")
            return bottom[2:]
        both = p.HasField("kernel_h") and p.HasField("kernel_w")
        if p.HasField("kernel_size") == both:
            raise self.refuse("the filter size is kernel_size OR kernel_h and kernel_w; not both", "set one of the two")
        return (p.kernel_h, p.kernel_w) if both else (p.kernel_size, p.kernel_size)

    def _pair(self, p: caffe_pb2.PoolingParameter, what: str) -> Shape:
        high, wide = f"{what}_h", f"{what}_w"
        if not p.HasField(high):
            if p.HasField(wide) and not p.HasField(what):
                raise self.refuse(f"has {wide} without {high}")
            one = getattr(p, what)
            return one, one
        if p.HasField(what) or not p.HasField(wide):
            raise self.refuse(f"{what} is {what} OR {high} and {wide}; not both")
        return getattr(p, high), getattr(p, wide)

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return True

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        pool, bottom = self.pool(bottoms[0]), bottoms[0]
        out = pool.size(bottom)
        if any(size < 1 for size in out):
            raise self.refuse(
                f"the kernel {pool.kernel[0]} x {pool.kernel[1]} is too large for its input {bottom[2]} x {bottom[3]}",
                "give the net a larger input",
            )
        if len(self.spec.top) == 2 and pool.method != MAX:
            raise self.refuse("a second top, the mask, is for MAX pooling only")
        return [(*bottom[:2], *out)] * len(self.spec.top)

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        pool = self.pool(bottoms[0].shape)
        tops = [pool.lower(graph, bottoms[0])]
        return [*tops, pool.mask(graph, bottoms[0])] if len(self.spec.top) == 2 else tops


@register("SPP")
class SPP(Layer):
    """Spatial pyramid: level i pools into 2^i x 2^i bins, all of them flattened and concatenated."""

    def levels(self, bottom: Shape) -> list[Pool]:
        p = self.spec.spp_param
        if len(bottom) != 4:
            raise self.refuse(f"its bottom must have 4 axes, not {len(bottom)}")
        if not 1 <= p.pyramid_height <= 16:
            raise self.refuse(f"pyramid_height {p.pyramid_height} is not from 1 to 16")
        if p.pool == caffe_pb2.SPPParameter.STOCHASTIC:
            raise self.refuse("STOCHASTIC pooling has no CPU code in Caffe", "MAX or AVE")
        pools = []
        for level in range(p.pyramid_height):
            bins = 2**level
            kernel = tuple(-(-n // bins) for n in bottom[2:])
            pad = tuple((k * bins - n + 1) // 2 for k, n in zip(kernel, bottom[2:], strict=True))
            if any(side >= k for side, k in zip(pad, kernel, strict=True)):
                raise self.refuse(f"level {level} has more bins than its input {bottom[2]} x {bottom[3]} has places")
            pools.append(Pool(p.pool, kernel, kernel, pad))
        return pools

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return True

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        bins = sum(math.prod(pool.size(bottoms[0])) for pool in self.levels(bottoms[0]))
        if self.spec.spp_param.pyramid_height == 1:
            return [(*bottoms[0][:2], 1, 1)]
        return [(bottoms[0][0], bottoms[0][1] * bins)]

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        out = self.shapes([bottoms[0].shape])[0]
        parts = []
        for pool in self.levels(bottoms[0].shape):
            top = pool.lower(graph, bottoms[0])
            parts.append(graph.reshape(top, (top.shape[0], math.prod(top.shape[1:]))))
        return [graph.reshape(graph("Concat", parts, (out[0], math.prod(out[1:])), axis=1), out)]
