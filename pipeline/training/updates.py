"""Caffe's six solvers: what an update does to a learned blob, in place, with the numbers that Caffe's have.

Every number is a float32 in Caffe, 1 - momentum as well: 1 - float32(0.999) is 0.00099998713.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Tensor = Any
"""A torch tensor of float32: what works on it needs no torch of its own."""
SOLVERS = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
WITH_TWO = ("AdaDelta", "Adam")
"""Their history has two blobs for each learned one: all first ones, then all second ones."""
_PIECE = 1 << 18
"""Values that are updated at a time: a piece of weights, gradient and history (3 MB) stays in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Update:
    """The numbers of an update.  Floats are float32 values.  clip: None where gradients are not clipped."""

    type: str
    momentum: float = 0.0
    momentum2: float = 0.999
    delta: float = 1e-8
    rms_decay: float = 0.99
    weight_decay: float = 0.0
    regularization: str = "L2"
    clip: float | None = None
    iter_size: int = 1


@dataclass(frozen=True, slots=True)
class Blob:
    """A learned blob's tensors, flat and live: weights, gradient (the sum of the passes), history (one or two)."""

    weights: Tensor
    gradient: Tensor
    history: tuple[Tensor, ...]
    lr_mult: float
    decay_mult: float


@dataclass(frozen=True, slots=True)
class Clipping:
    """norm: of all gradients together, before.  scale: what they were multiplied with; 1: nothing was clipped."""

    norm: float
    scale: float


def histories(update: Update, learned: int) -> int:
    """How many history blobs a solver of this type has for so many learned ones."""
    return learned * (2 if update.type in WITH_TWO else 1)


def clipped(update: Update, gradients: Sequence[Tensor]) -> Clipping | None:
    """Clips the gradients in place by their common L2 norm, as they are: before iter_size divides them.

    None: clip_gradients is off.
    """
    if update.clip is None:
        return None
    norm = float(np.float32(math.sqrt(sum(float(one.dot(one)) for one in gradients))))
    if not norm > update.clip:
        return Clipping(norm, 1.0)
    scale = _f32(np.float32(update.clip) / np.float32(norm))
    for one in gradients:
        one.mul_(scale)
    return Clipping(norm, scale)


def apply(update: Update, blob: Blob, rate: float, iteration: int) -> bool:
    """Changes a blob's weights and history.  Its gradient becomes what the weights lost, as Caffe leaves it in `diff`.

    rate: the solver's, of this iteration (0: the first).  Returns whether all that the weights lost is finite.
    """
    local = _f32(np.float32(rate) * np.float32(blob.lr_mult))
    decay = _f32(np.float32(update.weight_decay) * np.float32(blob.decay_mult))
    if update.type == "Adam":
        local = _f32(np.float32(local) * np.float32(_correction(update, iteration)))
    size = blob.weights.numel()
    piece = size if blob.weights.is_cuda else _PIECE
    sums = []
    for begin in range(0, size, piece or 1):
        end = min(size, begin + piece)
        weights, gradient = blob.weights[begin:end], blob.gradient[begin:end]
        if update.iter_size != 1:
            gradient.mul_(_f32(np.float32(1) / np.float32(update.iter_size)))
        if decay:
            gradient.add_(weights if update.regularization == "L2" else weights.sign(), alpha=decay)
        _change(update, gradient, [one[begin:end] for one in blob.history], local)
        weights.sub_(gradient)
        sums.append(gradient.sum())
    return math.isfinite(sum(map(float, sums))) or bool(blob.gradient.isfinite().all())


def finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite; their sum tells in one pass, where it does not overflow."""
    return math.isfinite(float(values.sum())) or bool(values.isfinite().all())


def _change(update: Update, gradient: Tensor, history: Sequence[Tensor], rate: float) -> None:
    """Makes of the gradient what the weights lose."""
    first, momentum = history[0], update.momentum
    match update.type:
        case "SGD":
            gradient.copy_(first.mul_(momentum).add_(gradient, alpha=rate))
        case "Nesterov":
            back = first.mul(-momentum)
            first.mul_(momentum).add_(gradient, alpha=rate)
            gradient.copy_(back.add_(first, alpha=_f32(np.float32(1) + np.float32(momentum))))
        case "AdaGrad":
            first.addcmul_(gradient, gradient)
            gradient.div_(first.sqrt().add_(update.delta)).mul_(rate)
        case "RMSProp":
            first.mul_(update.rms_decay).addcmul_(gradient, gradient, value=_rest(update.rms_decay))
            gradient.div_(first.sqrt().add_(update.delta)).mul_(rate)
        case "AdaDelta":
            second = history[1]
            first.mul_(momentum).addcmul_(gradient, gradient, value=_rest(momentum))
            gradient.mul_(second.add(update.delta).div_(first.add(update.delta)).sqrt_())
            second.mul_(momentum).addcmul_(gradient, gradient, value=_rest(momentum))
            gradient.mul_(rate)
        case "Adam":
            second = history[1]
            first.mul_(momentum).add_(gradient, alpha=_rest(momentum))
            second.mul_(update.momentum2).addcmul_(gradient, gradient, value=_rest(update.momentum2))
            gradient.copy_(first).div_(second.sqrt().add_(update.delta)).mul_(rate)
        case unknown:
            raise ValueError(f"unknown solver {unknown}")


def _correction(update: Update, iteration: int) -> float:
    """Adam's: of both moments, which begin at 0.  C's pow gives doubles, and only the whole is a float32."""
    with np.errstate(all="ignore"):
        first, second = (np.power(np.float64(one), iteration + 1) for one in (update.momentum, update.momentum2))
        return _f32(np.sqrt(1 - second) / (1 - first))


def _rest(share: float) -> float:
    return _f32(np.float32(1) - np.float32(share))


def _f32(number: float | np.floating[Any]) -> float:
    return float(np.float32(number))
