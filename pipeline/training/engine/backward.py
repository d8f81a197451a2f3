"""Caffe's own Backward of layers, formula by formula, where what autograd makes of their operations is another one.

So it is where calculus has no answer (a tie, a bound, a logarithm of 0), and where Caffe reads a blob that a later
layer has overwritten in place and a person asks for just that.  None of these layers has learned blobs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.codec import caffe_pb2
from pipeline.nets.layers import Layer
from pipeline.nets.layers.infogain import InfogainLoss
from pipeline.nets.layers.losses import LOG_THRESHOLD, Labelled, SigmoidCrossEntropyLoss, SoftmaxWithLoss
from pipeline.training.engine.operations import Across, across_channels, scale_of

Tensors = Sequence[Tensor]
Backward = Callable[[Any, Tensors, Tensors, Tensor], Sequence[Tensor | None]]
"""The layer, its bottoms, its tops, the gradient of its first top -> the gradient of each bottom, None for those that
have none."""


def _kept(layer: Layer, label: Tensor) -> Tensor | None:
    p = layer.spec.loss_param
    return label != p.ignore_label if p.HasField("ignore_label") else None


def _share(mode: int, kept: Tensor | None, outer: int, count: int) -> float | Tensor:
    """1 / what a loss is divided by: by at least 1."""
    modes = caffe_pb2.LossParameter
    if mode == modes.VALID and kept is not None:
        return 1.0 / kept.sum().clamp(min=1)
    return 1.0 / max(1, outer if mode == modes.BATCH_SIZE else 1 if mode == modes.NONE else count)


def _labels(layer: Labelled, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[int, int, int]]:
    """Scores as (outer, classes, inner); labels as (outer, 1, inner), as they are and as indices."""
    outer, classes, inner = layer.extents(tuple(scores.shape))
    label = labels.reshape(outer, 1, inner)
    return scores.reshape(outer, classes, inner), label, label.long().clamp(0, classes - 1), (outer, classes, inner)


def _softmax_with_loss(layer: SoftmaxWithLoss, bottoms: Tensors, tops: Tensors, gradient: Tensor) -> list[Tensor]:
    """softmax - 1 at the label, however small the label's probability is."""
    scores, label, index, (outer, _, inner) = _labels(layer, bottoms[0], bottoms[1])
    kept = _kept(layer, label)
    found = torch.softmax(scores, 1)
    found.scatter_add_(1, index, found.new_full((), -1.0).expand(index.shape))
    if kept is not None:
        found *= kept
    return [(found * (gradient * _share(layer.mode, kept, outer, outer * inner))).reshape(bottoms[0].shape)]


def _infogain_loss(layer: InfogainLoss, bottoms: Tensors, tops: Tensors, gradient: Tensor) -> list[Tensor]:
    scores, label, index, (outer, classes, inner) = _labels(layer, bottoms[0], bottoms[1])
    kept = _kept(layer, label)
    own = [torch.from_numpy(np.array(one)).to(scores) for one in layer.constants()]
    matrix = (own or list(bottoms[2:]))[0].reshape(classes, classes)
    rows = matrix[index[:, 0]].movedim(-1, 1)  # (outer, classes, inner)
    found = torch.softmax(scores, 1) * rows.sum(1, keepdim=True) - rows
    if kept is not None:
        found *= kept
    return [(found * (gradient * _share(layer.mode, kept, outer, outer * inner))).reshape(bottoms[0].shape)]


def _sigmoid_cross_entropy(
    layer: SigmoidCrossEntropyLoss, bottoms: Tensors, tops: Tensors, gradient: Tensor
) -> list[Tensor]:
    x, target = bottoms[0], bottoms[1].reshape(bottoms[0].shape)
    p = layer.spec.loss_param
    kept = target.trunc() != p.ignore_label if p.HasField("ignore_label") else None
    found = torch.sigmoid(x) - target
    if kept is not None:
        found *= kept
    return [found * (gradient * _share(layer.mode, kept, x.shape[0], x.numel()))]


def _multinomial_logistic_loss(layer: Labelled, bottoms: Tensors, tops: Tensors, gradient: Tensor) -> list[Tensor]:
    """-1 / p at the label, p no less than 1e-20."""
    prob, _, index, (outer, _, _) = _labels(layer, bottoms[0], bottoms[1])
    true = prob.gather(1, index).clamp(min=LOG_THRESHOLD)
    found = torch.zeros_like(prob).scatter_(1, index, -gradient / outer / true)
    return [found.reshape(bottoms[0].shape)]


def _contrastive_loss(layer: Layer, bottoms: Tensors, tops: Tensors, gradient: Tensor) -> list[Tensor]:
    """Of a pair that should be apart: (margin - d) / (d + 1e-4) times the gap."""
    p, items = layer.spec.contrastive_loss_param, bottoms[0].shape[0]
    gap = (bottoms[0] - bottoms[1]).reshape(items, -1)
    square = gap.square().sum(1)
    distance = square.sqrt()
    missing = p.margin - (square if p.legacy_version else distance)
    apart = torch.ones_like(missing) if p.legacy_version else missing / (distance + 1e-4)
    same = bottoms[2].reshape(items).long() != 0
    factor = torch.where(same, torch.ones_like(apart), torch.where(missing > 0, -apart, torch.zeros_like(apart)))
    found = (gap * factor[:, None] * (gradient / items)).reshape(bottoms[0].shape)
    return [found, -found]


def _bnll(layer: Layer, bottoms: Tensors, tops: Tensors, gradient: Tensor) -> list[Tensor]:
    grown = bottoms[0].clamp(max=50.0).exp()
    return [gradient * grown / (grown + 1)]


def _clip(layer: Layer, bottoms: Tensors, tops: Tensors, gradient: Tensor) -> list[Tensor]:
    p = layer.spec.clip_param
    return [gradient * ((bottoms[0] >= p.min) & (bottoms[0] <= p.max))]


def _mvn(layer: Layer, bottoms: Tensors, tops: Tensors, gradient: Tensor) -> list[Tensor]:
    p, x = layer.spec.mvn_param, bottoms[0]
    groups = math.prod(x.shape[: 1 if p.across_channels else 2])
    flat, top, above = (one.reshape(groups, -1) for one in (x, tops[0], gradient))
    spread = flat.var(1, unbiased=False, keepdim=True).sqrt() + p.eps
    found = above - above.mean(1, keepdim=True) - top * (top * above).mean(1, keepdim=True)
    return [(found / spread).reshape(x.shape)]


def _power(layer: Layer, bottoms: Tensors, tops: Tensors, gradient: Tensor) -> list[Tensor]:
    """power scale top / (shift + scale bottom): 0 / 0, and so NaN, where that is 0."""
    p, x = layer.spec.power_param, bottoms[0]
    factor = p.power * p.scale
    if p.power == 2:
        slope = x * (factor * p.scale)
        return [gradient * (slope + factor * p.shift if p.shift else slope)]
    if p.shift == 0:
        return [gradient * (tops[0] / x * p.power)]
    return [gradient * (tops[0] / (x * p.scale + p.shift) * factor)]


def _relu(layer: Layer, bottoms: Tensors, tops: Tensors, gradient: Tensor) -> list[Tensor]:
    over = bottoms[0] > 0
    return [gradient * (over + layer.spec.relu_param.negative_slope * ~over)]


def _elu(layer: Layer, bottoms: Tensors, tops: Tensors, gradient: Tensor) -> list[Tensor]:
    over = bottoms[0] > 0
    return [gradient * (over + (layer.spec.elu_param.alpha + tops[0]) * ~over)]


def _exp(layer: Layer, bottoms: Tensors, tops: Tensors, gradient: Tensor) -> list[Tensor]:
    p = layer.spec.exp_param
    return [tops[0] * gradient * (p.scale * (1.0 if p.base == -1 else math.log(p.base)))]


def _log(layer: Layer, bottoms: Tensors, tops: Tensors, gradient: Tensor) -> list[Tensor]:
    p = layer.spec.log_param
    factor = p.scale / (1.0 if p.base == -1 else math.log(p.base))
    return [gradient * factor / (bottoms[0] * p.scale + p.shift)]


def _swish(layer: Layer, bottoms: Tensors, tops: Tensors, gradient: Tensor) -> list[Tensor]:
    """The sigmoid is Caffe's own blob: nobody overwrites it."""
    beta = layer.spec.swish_param.beta
    inner = torch.sigmoid(bottoms[0] * beta)
    return [gradient * (beta * tops[0] + inner * (1 - beta * tops[0]))]


def _softmax(layer: Layer, bottoms: Tensors, tops: Tensors, gradient: Tensor) -> list[Tensor]:
    axis = layer.axis(layer.spec.softmax_param.axis, tuple(bottoms[0].shape))
    return [(gradient - (gradient * tops[0]).sum(axis, keepdim=True)) * tops[0]]


def _lrn(layer: Layer, bottoms: Tensors, tops: Tensors, gradient: Tensor) -> list[Tensor]:
    p = layer.spec.lrn_param
    scale = scale_of(bottoms[0], p.local_size, p.alpha, p.k)
    return [across_channels(bottoms[0], tops[0], scale, gradient, Across(p.local_size, p.alpha, p.beta))]


ALWAYS: dict[str, Backward] = {
    "BNLL": _bnll, "Clip": _clip, "ContrastiveLoss": _contrastive_loss, "InfogainLoss": _infogain_loss, "MVN": _mvn,
    "MultinomialLogisticLoss": _multinomial_logistic_loss, "Power": _power,
    "SigmoidCrossEntropyLoss": _sigmoid_cross_entropy, "SoftmaxWithLoss": _softmax_with_loss,
}  # fmt: skip
"""By type: calculus and Caffe differ somewhere."""
OVERWRITTEN: dict[str, Backward] = {
    **ALWAYS, "ELU": _elu, "Exp": _exp, "LRN": _lrn, "Log": _log, "ReLU": _relu,
    "Sigmoid": lambda layer, bottoms, tops, gradient: [gradient * tops[0] * (1 - tops[0])],
    "Softmax": _softmax, "Swish": _swish,
    "TanH": lambda layer, bottoms, tops, gradient: [gradient * (1 - tops[0] * tops[0])],
}  # fmt: skip
"""By type: what Caffe computes of blobs that others have overwritten."""


def own_backward(layer: Layer) -> Backward | None:
    """Caffe's gradient, where it is not what autograd makes of the layer's operations."""
    kind, power = layer.spec.type, layer.spec.power_param
    if (kind == "MVN" and not layer.spec.mvn_param.normalize_variance) or (
        kind == "Power" and (power.power in (0, 1) or power.scale == 0)
    ):
        return None
    return ALWAYS.get(layer.spec.type)
