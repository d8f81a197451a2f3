"""What a linear model pays for its scores: the sum over examples, and the derivative by each score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Labels = NDArray[np.int32]


class Paid(NamedTuple):
    """total: the sum over the examples.  slopes: (n, classes), its derivative by each score."""

    total: float
    slopes: Scores


@dataclass(frozen=True)
class Loss:
    """pays: for scores (n, classes) and labels (n,).  bend: about its second derivative by a score, to scale steps by.

    top: the layer of Caffe that makes shares of 0 to 1 of scores, "" where none does.
    """

    name: str
    pays: Callable[[Scores, Labels], Paid]
    bend: float
    top: str


def softmax(scores: Scores, labels: Labels) -> Paid:
    """-ln of the label's share of exp(scores): Caffe's SoftmaxWithLoss.  scores: (n, classes); labels: (n,)."""
    shifted = scores - scores.max(1, keepdims=True)
    shares = np.exp(shifted)
    sums = shares.sum(1)
    rows = np.arange(len(labels))
    total = float((np.log(sums) - shifted[rows, labels]).sum())
    shares /= sums[:, None]
    shares[rows, labels] -= 1.0
    return Paid(total, shares)


def logistic(scores: Scores, labels: Labels) -> Paid:
    """ln(1 + exp(-y score)) of each class against the rest, y = 1 for the label, else -1; summed over the classes."""
    signs = _signs(scores, labels)
    margins = signs * scores
    paid = np.logaddexp(0.0, -margins)
    return Paid(float(paid.sum()), -signs * np.exp(-margins - paid))


def hinge(scores: Scores, labels: Labels) -> Paid:
    """max(0, 1 - y score)^2 of each class against the rest, summed: Caffe's HingeLoss with norm: L2."""
    signs = _signs(scores, labels)
    short = np.maximum(0.0, 1.0 - signs * scores)
    return Paid(float(np.square(short).sum()), -2.0 * signs * short)


def _signs(scores: Scores, labels: Labels) -> Scores:
    signs = np.full(scores.shape, -1.0)
    signs[np.arange(len(labels)), labels] = 1.0
    return signs


LOSSES = {
    one.name: one
    for one in (
        Loss("softmax", softmax, 0.1, "Softmax"),
        Loss("logistic", logistic, 0.25, "Sigmoid"),
        Loss("hinge", hinge, 2.0, ""),
    )
}
"""By the name of the command line.  Each is convex and has a continuous derivative."""
