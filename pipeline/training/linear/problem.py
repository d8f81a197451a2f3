"""The objective of a linear model over a table: mean loss + l2/2 |weights|^2, and its gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.training.linear.losses import Loss
from pipeline.training.linear.solver import Point, Scaling, Vector
from pipeline.training.linear.table import Rows, Table

_SAMPLE = 4096  # rows whose directions are looked at
_DIRECTIONS = 128
_ROUNDS = 3


@dataclass(frozen=True)
class Problem:
    """Variables: (classes, dim + 1) float64; the last of each row is the bias, which the penalty covers as well.

    Rows are multiplied in float32; losses and sums over rows are float64.
    """

    table: Table
    classes: int
    loss: Loss
    l2: float

    @property
    def start(self) -> Vector:
        """All 0."""
        return np.zeros((self.classes, self.table.dim + 1))

    def __call__(self, where: Vector) -> Point:
        """Value and gradient: one pass over the table."""
        total, gradient = 0.0, np.zeros(where.shape)
        weights, bias = np.ascontiguousarray(where[:, :-1].T, np.float32), where[:, -1]
        for rows, labels in self.table.chunks():
            paid = self.loss.pays(rows @ weights + bias, labels)
            total += paid.total
            gradient[:, :-1] += np.ascontiguousarray(paid.slopes.T, np.float32) @ rows
            gradient[:, -1] += paid.slopes.sum(0)
        count = len(self.table)
        penalty = 0.5 * self.l2 * float(np.vdot(where, where))
        return Point(total / count + penalty, gradient / count + self.l2 * where)


@dataclass(frozen=True)
class Directions:
    """Where the rows are widest.  axes: (dim, k) float32, orthonormal; lengths: (k,), mean square along each;
    rest: mean square along any other direction."""

    axes: Rows
    lengths: NDArray[np.float64]
    rest: float


def directions(table: Table) -> Directions:
    """Of the first rows, by subspace iteration: memory for 4,096 rows' products, not for a dim x dim matrix."""
    count, k = min(_SAMPLE, len(table)), min(_DIRECTIONS, table.dim, len(table))
    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((table.dim, k)))[0].astype(np.float32)
    lengths, total = np.zeros(k), 0.0
    for number in range(_ROUNDS):
        product = np.zeros((table.dim, k))
        total = 0.0
        for rows, _ in table.chunks(count):
            product += rows.T @ (rows @ axes)
            total += float(np.einsum("nd,nd->", rows, rows, dtype=np.float64)) if number == _ROUNDS - 1 else 0.0
        wide, lengths, _ = np.linalg.svd(product / count, full_matrices=False)
        axes = np.ascontiguousarray(wide, np.float32)
    left = max(0.0, total / count - float(lengths.sum()))
    return Directions(axes, lengths, left / max(1, table.dim - k))


def scaling(found: Directions, l2: float, bend: float) -> Scaling:
    """The inverse of bend x (the rows' second moment) + l2, as far as the directions know it; of the bias, too."""
    rest = 1.0 / (bend * found.rest + l2)
    along = 1.0 / (bend * found.lengths + l2) - rest
    axes = found.axes

    def scaled(gradient: Vector) -> Vector:
        weights = gradient[:, :-1]
        out = rest * gradient
        out[:, :-1] += ((weights.astype(np.float32) @ axes) * along) @ axes.T
        out[:, -1] = gradient[:, -1] / (bend + l2)
        return out

    return scaled
