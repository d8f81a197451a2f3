"""Convolution, Deconvolution and Im2col over any number of spatial axes (src/caffe/layers/base_conv_layer.cpp)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.codec import caffe_pb2
from pipeline.nets.graph.lowered import Lowered, Shape, Value
from pipeline.nets.layers.registry import Layer, Parameter, register, text


@dataclass(frozen=True, slots=True)
class Window:
    """Kernel, stride, padding and dilation, one number a spatial axis."""

    kernel: Shape
    stride: Shape
    pad: Shape
    dilation: Shape

    @property
    def extent(self) -> Shape:
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))


class _Sliding(Layer):
    """What the three types share: their windows and their channel axis."""

    @property
    def p(self) -> caffe_pb2.ConvolutionParameter:
        return self.spec.convolution_param

    def by_item(self, bottoms: Sequence[Shape]) -> bool:
        return self.channel_axis(bottoms[0]) > 0

    def channel_axis(self, bottom: Shape) -> int:
        return self.axis(self.p.axis, bottom)

    def window(self, bottom: Shape) -> Window:
        axes = len(bottom) - self.channel_axis(bottom) - 1
        kernel = self._sizes("kernel", self.p.kernel_size, axes, None)
        if any(size < 1 for size in kernel):
            raise self.refuse(f"kernel sizes must be positive: {text(kernel)}")
        stride = self._sizes("stride", self.p.stride, axes, 1)
        if any(size < 1 for size in stride):
            raise self.refuse(f"strides must be positive: {text(stride)}")
        pad = self._sizes("pad", self.p.pad, axes, 0)
        dilation = self._repeated("dilation", self.p.dilation, axes, 1)
        if any(size < 1 for size in dilation):
            raise self.refuse("dilation must be positive")
        self.check_padded(bottom[len(bottom) - axes :], pad)
        return Window(kernel, stride, pad, dilation)

    def _sizes(self, what: str, repeated: Sequence[int], axes: int, default: int | None) -> Shape:
        """NAME (once, or once an axis) or NAME_h with NAME_w, as each of Caffe's window sizes is given."""
        high, wide = f"{what}_h", f"{what}_w"
        if self.p.HasField(high) or self.p.HasField(wide):
            if axes != 2:
                raise self.refuse(f"{high} and {wide} are for 2 spatial axes; the bottom has {axes}")
            if repeated:
                raise self.refuse(f"has {what}{'_size' if what == 'kernel' else ''} as well as {high} or {wide}")
            return getattr(self.p, high), getattr(self.p, wide)
        return self._repeated(what, repeated, axes, default)

    def _repeated(self, what: str, values: Sequence[int], axes: int, default: int | None) -> Shape:
        if not values and default is None and axes:
            raise self.refuse("has no kernel size", "set kernel_size, or kernel_h and kernel_w")
        if len(values) not in ((0, 1, axes) if default is not None else (1, axes)):
            raise self.refuse(f"{what} is given {len(values)} times for {axes} spatial axes")
        return tuple(values) if len(values) == axes else tuple(values or (default or 0,)) * axes

    def slid(self, bottom: Shape, window: Window) -> Shape:
        """Spatial sizes after sliding: floor((in + 2 pad - extent) / stride) + 1."""
        spatial = bottom[self.channel_axis(bottom) + 1 :]
        sizes = []
        for size, extent, stride, pad in zip(spatial, window.extent, window.stride, window.pad, strict=True):
            if size + 2 * pad < extent:
                raise self.refuse(
                    f"the kernel (extent {extent}) is larger than its input ({size} with pad {pad})",
                    "give the net a larger input",
                )
            sizes.append((size + 2 * pad - extent) // stride + 1)
        return tuple(sizes)


class _Weighted(_Sliding):
    """Convolution and Deconvolution: weights, a bias, groups, several bottoms through the same weights."""

    bottoms = (1, None)
    tops = (1, None)
    in_channels_first = False

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if len(bottoms) != len(self.spec.top):
            raise self.refuse(f"has {len(bottoms)} bottoms but {len(self.spec.top)} tops")
        for bottom in bottoms[1:]:
            if bottom != bottoms[0]:
                raise self.refuse(f"its bottoms differ in shape: {text(bottoms[0])} and {text(bottom)}")
        axis = self.channel_axis(bottoms[0])
        self.parameters(bottoms)
        out = (*bottoms[0][:axis], self.p.num_output, *self.spatial(bottoms[0], self.window(bottoms[0])))
        return [out] * len(bottoms)

    def spatial(self, bottom: Shape, window: Window) -> Shape:
        return self.slid(bottom, window)

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        bottom, p = bottoms[0], self.p
        channels, window = bottom[self.channel_axis(bottom)], self.window(bottom)
        if p.num_output < 1:
            raise self.refuse("num_output must be positive")
        if p.group < 1:
            raise self.refuse("group must be positive")
        if channels % p.group:
            raise self.refuse(f"{channels} channels do not divide into {p.group} groups")
        if p.num_output % p.group:
            raise self.refuse(
                f"num_output {p.num_output} does not divide into {p.group} groups",
                "num_output should be a multiple of group",
            )
        first, second = (channels, p.num_output) if self.in_channels_first else (p.num_output, channels)
        weights = Parameter((first, second // p.group, *window.kernel), p.weight_filler)
        return [weights, Parameter((p.num_output,), p.bias_filler)] if p.bias_term else [weights]

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        axis, window = self.channel_axis(bottoms[0].shape), self.window(bottoms[0].shape)
        outs = self.shapes([bottom.shape for bottom in bottoms])
        tops = []
        for bottom, out in zip(bottoms, outs, strict=True):
            # one leading axis, as ONNX has it: all that stands before the channels is a batch
            batch = math.prod(bottom.shape[:axis])
            flat = graph.reshape(bottom, (batch, *bottom.shape[axis:]))
            tops.append(graph.reshape(self.one(graph, flat, parameters, window, (batch, *out[axis:])), out))
        return tops

    def one(self, graph: Lowered, bottom: Value, weights: Sequence[Value], window: Window, out: Shape) -> Value:
        raise NotImplementedError


@register("Convolution")
class Convolution(_Weighted):
    def one(self, graph: Lowered, bottom: Value, weights: Sequence[Value], window: Window, out: Shape) -> Value:
        axes = len(window.kernel)
        if axes in (1, 2, 3):
            return graph(
                "Conv",
                [bottom, *weights],
                out,
                kernel_shape=list(window.kernel),
                strides=list(window.stride),
                pads=list(window.pad) * 2,
                dilations=list(window.dilation),
                group=self.p.group,
            )
        groups, count = self.p.group, math.prod(out[2:])
        columns = unfolded(graph, bottom, window, out[2:])
        columns = graph.reshape(columns, (out[0], groups, math.prod(columns.shape[1:]) // groups // count, count))
        matrix = graph.reshape(weights[0], (1, groups, out[1] // groups, columns.shape[2]))
        top = graph.reshape(graph("MatMul", [matrix, columns], (out[0], groups, out[1] // groups, count)), out)
        if len(weights) == 1:
            return top
        return graph.add(top, graph.reshape(weights[1], (out[1],) + (1,) * axes))

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        weights = self.parameters(bottoms)[0].shape
        return sum(math.prod(top) * math.prod(weights[1:]) for top in tops)


@register("Deconvolution")
class Deconvolution(_Weighted):
    """The transpose of a convolution (deconv_layer.cpp): size = stride (in - 1) + extent - 2 pad."""

    in_channels_first = True

    def spatial(self, bottom: Shape, window: Window) -> Shape:
        sizes = bottom[self.channel_axis(bottom) + 1 :]
        out = tuple(
            s * (n - 1) + e - 2 * p for n, s, e, p in zip(sizes, window.stride, window.extent, window.pad, strict=True)
        )
        if any(size < 0 for size in out):
            raise self.refuse(f"its output would have the spatial size {text(out)}")
        return out

    def one(self, graph: Lowered, bottom: Value, weights: Sequence[Value], window: Window, out: Shape) -> Value:
        if len(window.kernel) not in (1, 2, 3):
            raise self.refuse(f"{len(window.kernel)} spatial axes are not supported", "1 to 3 are")
        return graph(
            "ConvTranspose",
            [bottom, *weights],
            out,
            kernel_shape=list(window.kernel),
            strides=list(window.stride),
            pads=list(window.pad) * 2,
            dilations=list(window.dilation),
            group=self.p.group,
        )

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        weights = self.parameters(bottoms)[0].shape
        return sum(math.prod(bottom) * math.prod(weights[1:]) for bottom in bottoms)


@register("Im2col")
class Im2col(_Sliding):
    """Each window's values as channels (im2col_layer.cpp)."""

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        bottom, axis, window = bottoms[0], self.channel_axis(bottoms[0]), self.window(bottoms[0])
        return [(*bottom[:axis], bottom[axis] * math.prod(window.kernel), *self.slid(bottom, window))]

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        bottom, out = bottoms[0], self.shapes([bottoms[0].shape])[0]
        axis = self.channel_axis(bottom.shape)
        flat = graph.reshape(bottom, (math.prod(bottom.shape[:axis]), *bottom.shape[axis:]))
        return [graph.reshape(unfolded(graph, flat, self.window(bottom.shape), out[axis + 1 :]), out)]


def unfolded(graph: Lowered, bottom: Value, window: Window, out: Shape) -> Value:
    """(N, C, spatial...) -> (N, C, kernel places, window places): the columns of im2col, by one Gather."""
    padded = padded_with(graph, bottom, window.pad, window.pad, 0.0)
    spatial = padded.shape[2:]
    places = []
    for shift in itertools.product(*map(range, window.kernel)):
        steps = zip(out, window.stride, shift, window.dilation, strict=True)
        lines = [np.arange(n) * s + k * d for n, s, k, d in steps]
        grid = np.meshgrid(*lines, indexing="ij") if lines else []
        places.append(np.ravel_multi_index(grid, spatial).reshape(-1) if lines else np.zeros(1, np.int64))
    index = np.stack(places)
    flat = graph.reshape(padded, (*padded.shape[:2], math.prod(spatial)))
    return graph("Gather", [flat, graph.constant(index)], (*padded.shape[:2], *index.shape), axis=2)


def padded_with(graph: Lowered, value: Value, before: Sequence[int], after: Sequence[int], with_: float) -> Value:
    """The spatial axes of (N, C, ...) padded with one number."""
    if not any(before) and not any(after):
        return value
    pads = np.array([0, 0, *before, 0, 0, *after], np.int64)
    shape = value.shape[:2] + tuple(n + b + a for n, b, a in zip(value.shape[2:], before, after, strict=True))
    return graph("Pad", [value, graph.constant(pads), graph.constant(with_)], shape, mode="constant")
