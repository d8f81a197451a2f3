"""Operations in torch as training needs them: what inference computes, with gradients that are Caffe's.

Inference's own stand in nets/engines/torch_operations.py; here is what differs, and what only training has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.nets.engines.torch_operations import OPERATIONS, Attributes, Inputs, Operation
from pipeline.training.engine.convolution import convolved, deconvolved
from pipeline.training.engine.in_place import IN_PLACE


def operations(dtype: torch.dtype, exact: bool) -> Mapping[str, Operation]:
    """By kind.  dtype: of what is float32 in the graph.  exact: convolution in Caffe's order of sums."""
    types = {1: dtype, 7: torch.int64, 9: torch.bool, 11: torch.float64}
    found = {**OPERATIONS, **_TRAINING, "Cast": lambda x, a: x[0].to(types[a["to"]])}
    return {**found, "Conv": convolved, "ConvTranspose": deconvolved} if exact else found


def _laid(kind: str) -> Operation:
    """With filters whose channels are last, as the images' are: else an image of one channel would decide."""
    plain = OPERATIONS[kind]

    def compute(x: Inputs, a: Attributes) -> Tensor | Sequence[Tensor]:
        form = torch.channels_last if x[1].ndim == 4 else torch.preserve_format
        return plain([x[0], x[1].to(x[0].dtype, memory_format=form), *x[2:]], a)

    return compute


def _gemm(x: Inputs, a: Attributes) -> Tensor | Sequence[Tensor]:
    """In the precision of its input: where that is bf16, the weights are rounded, and no input goes back to fp32."""
    return OPERATIONS["Gemm"]([x[0], x[1].to(x[0].dtype), *x[2:]], a)


def _largest(x: Inputs, a: Attributes) -> Tensor:
    """Its gradient has its channels last as well: torch would copy the bottom's gradient twice where it has not."""
    found = functional.max_pool2d(x[0], a["kernel"], a["stride"], a["pad"], ceil_mode=a["ceil"])
    if found.requires_grad and found.is_contiguous(memory_format=torch.channels_last):
        found.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))
    return found


def _average(x: Inputs, a: Attributes) -> Tensor:
    """Divided by the window as far as the padding goes, as Caffe divides."""
    return functional.avg_pool2d(x[0], a["kernel"], a["stride"], a["pad"], a["ceil"], count_include_pad=True)


def _batch_normalised(x: Inputs, a: Attributes) -> Sequence[Tensor]:
    """The values; the batch's mean and its variance as Caffe keeps it (divided by the count less 1)."""
    shape = x[0].shape
    values = _whole(x[0]) if len(shape) > 1 else _whole(x[0]).reshape(-1, 1)
    channels, count = values.shape[1], math.prod(values.shape) // values.shape[1]
    mean, variance = values.new_zeros(channels), values.new_ones(channels)
    if count == 1:  # nothing varies; torch divides by 0 here
        return (values - values.detach()).reshape(shape), values.detach().reshape(channels), torch.zeros_like(mean)
    top = torch.batch_norm(values, None, None, mean, variance, True, 1.0, a["eps"], False)
    return top.reshape(shape), mean, variance


class _AcrossChannels(torch.autograd.Function):  # type: ignore[misc]
    """x / scale ^ beta with scale = k + alpha / n times the sum of squares; Caffe's gradient of it, in few passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        scale = _windows(x.square(), size).mul_(alpha).add_(k)
        top = x * scale.pow(-beta)
        ctx.save_for_backward(x, scale)
        ctx.lrn = Across(size, alpha, beta)
        return top

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, scale = ctx.saved_tensors
        return across_channels(x, None, scale, gradient, ctx.lrn), None, None, None, None


class Across(NamedTuple):
    """The numbers of LRN across channels, as its layer names them; size: its local_size."""

    size: int
    alpha: float
    beta: float


def across_channels(x: Tensor, top: Tensor | None, scale: Tensor, gradient: Tensor, lrn: Across) -> Tensor:
    """LRN's gradient.  top: what Caffe takes for its values; None: as they were computed."""
    factor = scale.pow(-lrn.beta)
    top = x * factor if top is None else top
    ratio = _windows(gradient * top / scale, lrn.size)
    return factor.mul_(gradient).sub_(ratio.mul_(x).mul_(2 * lrn.alpha * lrn.beta))


def scale_of(x: Tensor, size: int, alpha: float, k: float) -> Tensor:
    """What LRN across channels divides by, before its power."""
    return _windows(x.square(), size).mul_(alpha).add_(k)


def _windows(x: Tensor, size: int) -> Tensor:
    """The mean over each window of `size` channels, zeros beyond the ends.  (N, C, ...) in and out."""
    last = x.movedim(1, -1)
    rows = last.reshape(-1, 1, x.shape[1])
    return functional.avg_pool1d(rows, size, 1, size // 2).reshape(last.shape).movedim(-1, 1)


def _whole(x: Tensor) -> Tensor:
    """Sums of squares leave the range of half precision."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _lrn(x: Inputs, a: Attributes) -> Tensor:
    found = _AcrossChannels.apply(_whole(x[0]), a["size"], a["alpha"], a["beta"], a["bias"])
    assert isinstance(found, Tensor)
    return found


_TRAINING: dict[str, Operation] = {
    "AverageWindows": _average,
    "Conv": _laid("Conv"),
    "ConvTranspose": _laid("ConvTranspose"),
    "BatchNormalised": _batch_normalised,
    "Gemm": _gemm,
    "Detach": lambda x, a: x[0].detach(),
    "LRN": _lrn,
    "LargestOfWindows": _largest,
    IN_PLACE: lambda x, a: x[0].relu_(),
    "PRelu": lambda x, a: torch.where(x[0] > 0, x[0], x[0] * x[1]),  # at 0 the slope has the gradient
}
