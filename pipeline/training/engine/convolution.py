"""Convolution as Caffe computes it: im2col and one product an image, each sum in Caffe's order.

Slower than what a library does.  But where two values of a MAX window are nearly equal, another order of sums decides
for the other one, and from there on the training is another one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.nets.engines.torch_operations import Attributes, Inputs


@dataclass(frozen=True, slots=True)
class Windows:
    """How windows slide: a number for each spatial axis; `spatial`: the sizes that they slide over, without padding."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]
    spatial: tuple[int, ...]

    @property
    def out(self) -> tuple[int, ...]:
        sizes = zip(self.spatial, self.kernel, self.stride, self.pad, self.dilation, strict=True)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes)

    def columns(self, image: Tensor) -> Tensor:
        """(C, spatial...) -> (C x kernel places, window places): im2col."""
        sides = [side for pad in reversed(self.pad) for side in (pad, pad)]
        padded = functional.pad(image, sides).contiguous()
        steps = padded.stride()
        size = (image.shape[0], *self.kernel, *self.out)
        strides = (
            steps[0],
            *(step * d for step, d in zip(steps[1:], self.dilation, strict=True)),
            *(step * s for step, s in zip(steps[1:], self.stride, strict=True)),
        )
        rows = image.shape[0]
        for one in self.kernel:
            rows *= one
        return padded.as_strided(size, strides).reshape(rows, -1)

    def image(self, columns: Tensor, channels: int) -> Tensor:
        """The other way, (C x kernel places, window places) -> (C, spatial...), where windows meet added: col2im."""
        parts = columns.reshape(channels, *self.kernel, *self.out)
        padded = columns.new_zeros(channels, *(n + 2 * p for n, p in zip(self.spatial, self.pad, strict=True)))
        for place in itertools.product(*map(range, self.kernel)):
            lines = [
                slice(k * d, k * d + s * (o - 1) + 1, s)
                for k, d, s, o in zip(place, self.dilation, self.stride, self.out, strict=True)
            ]
            padded[(slice(None), *lines)] += parts[(slice(None), *place)]
        whole = [slice(p, p + n) for p, n in zip(self.pad, self.spatial, strict=True)]
        return padded[(slice(None), *whole)]


def convolved(x: Inputs, a: Attributes) -> Tensor:
    """The operation Conv."""
    windows = _windows(a, tuple(x[0].shape[2:]))
    return _product(_Convolution, x, windows, a["group"])


def deconvolved(x: Inputs, a: Attributes) -> Tensor:
    """The operation ConvTranspose."""
    sizes = zip(x[0].shape[2:], a["kernel_shape"], a["strides"], a["pads"], a["dilations"], strict=False)
    spatial = tuple(s * (n - 1) + d * (k - 1) + 1 - 2 * p for n, k, s, p, d in sizes)
    return _product(_Deconvolution, x, _windows(a, spatial), a["group"])


def _windows(a: Attributes, spatial: tuple[int, ...]) -> Windows:
    axes = len(spatial)
    return Windows(
        tuple(a["kernel_shape"]), tuple(a["strides"]), tuple(a["pads"][:axes]), tuple(a["dilations"]), spatial
    )


def _product(how: type[torch.autograd.Function], x: Inputs, windows: Windows, groups: int) -> Tensor:
    bias = x[2] if len(x) > 2 else None
    top = how.apply(x[0].contiguous(), x[1], bias, windows, groups)
    assert isinstance(top, Tensor)
    return top


Found = tuple[Tensor | None, ...]


class _Convolution(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, bias: Tensor | None, windows: Windows, groups: int) -> Tensor:
        ctx.save_for_backward(x, weights)
        ctx.how = windows, groups
        matrices = _matrices(weights, groups)
        tops = []
        for image in x:
            columns = windows.columns(image).chunk(groups)
            top = torch.cat([matrix @ one for matrix, one in zip(matrices, columns, strict=True)])
            tops.append(top if bias is None else top + bias[:, None])
        return torch.stack(tops).reshape(x.shape[0], weights.shape[0], *windows.out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Found:
        x, weights = ctx.saved_tensors
        windows, groups = ctx.how
        into, to_weights, to_bias = ctx.needs_input_grad[:3]
        gradient = gradients[0].contiguous().reshape(x.shape[0], weights.shape[0], -1)
        matrices = _matrices(weights, groups)
        found = None
        if to_weights:
            found = [torch.zeros_like(matrix) for matrix in matrices]
            for image, one in zip(x, gradient, strict=True):
                columns = windows.columns(image).chunk(groups)
                for total, top, column in zip(found, one.chunk(groups), columns, strict=True):
                    total.addmm_(top, column.T)
        below = None
        if into:
            images = []
            for one in gradient:
                columns = torch.cat([m.T @ top for m, top in zip(matrices, one.chunk(groups), strict=True)])
                images.append(windows.image(columns, x.shape[1]))
            below = torch.stack(images)
        shifts = _summed(gradient) if to_bias else None
        return below, None if found is None else torch.cat(found).reshape(weights.shape), shifts, None, None


class _Deconvolution(torch.autograd.Function):  # type: ignore[misc]
    """Weights are (channels in, channels out / groups, kernel...)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, bias: Tensor | None, windows: Windows, groups: int) -> Tensor:
        ctx.save_for_backward(x, weights)
        ctx.how = windows, groups
        matrices = _matrices(weights, groups)
        channels = weights.shape[1] * groups
        tops = []
        for image in x.reshape(x.shape[0], x.shape[1], -1):
            columns = torch.cat([m.T @ one for m, one in zip(matrices, image.chunk(groups), strict=True)])
            top = windows.image(columns, channels)
            tops.append(top if bias is None else top + bias.reshape(-1, *[1] * len(windows.kernel)))
        return torch.stack(tops)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Found:
        x, weights = ctx.saved_tensors
        windows, groups = ctx.how
        into, to_weights, to_bias = ctx.needs_input_grad[:3]
        gradient, matrices = gradients[0].contiguous(), _matrices(weights, groups)
        flat = x.reshape(x.shape[0], x.shape[1], -1)
        found = [torch.zeros_like(matrix) for matrix in matrices]
        below = []
        for image, one in zip(flat, gradient, strict=True):
            columns = windows.columns(one).chunk(groups)
            for total, part, column in zip(found, image.chunk(groups), columns, strict=True):
                if to_weights:
                    total.addmm_(part, column.T)
            if into:
                below.append(torch.cat([m @ column for m, column in zip(matrices, columns, strict=True)]))
        shifts = _summed(gradient.flatten(2)) if to_bias else None
        return (
            torch.stack(below).reshape(x.shape) if into else None,
            torch.cat(found).reshape(weights.shape) if to_weights else None,
            shifts,
            None,
            None,
        )


def _matrices(weights: Tensor, groups: int) -> Sequence[Tensor]:
    found: Sequence[Tensor] = weights.reshape(weights.shape[0], -1).chunk(groups)
    return found


def _summed(gradient: Tensor) -> Tensor:
    """(N, C, places) -> (C,): image after image."""
    total = gradient.new_zeros(gradient.shape[1])
    ones = gradient.new_ones(gradient.shape[2])
    for one in gradient:
        total.addmv_(one, ones)
    return total
