"""The optimum of the same objective by a batch solver, with a proof of how near it is: what descent is judged by.

Hinge and squared hinge: coordinate ascent on the dual problem (Hsieh et al. 2008), whose value is a lower bound of the
objective at any time.  Logistic loss: the solver of heads, whose gradient bounds the distance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.training.descent.compiled import compiled
from pipeline.training.descent.descent import flat, objective
from pipeline.training.descent.examples import BLOCK, Dense, Examples, Sparse
from pipeline.training.descent.losses import Loss, cost, pull
from pipeline.training.descent.values import Numbers, Rows
from pipeline.training.linear.solver import Point, minimise

_PASSES = 3000
_LOOK = 10


class Optimum(NamedTuple):
    """The optimum's objective is at most `objective`, and at least `bound`.  weights: (vectors, dim) float64."""

    weights: Numbers
    bias: Numbers
    objective: float
    bound: float
    passes: int


class _Dual(NamedTuple):
    """alpha: (n), an example's part of the weights; squares: of the examples, with the bias's 1.  weights: (dim + 1),
    the last one the bias.  most: no alpha is larger; diagonal: added to each square; tilted: there is a bias."""

    alpha: Numbers
    squares: Numbers
    weights: Numbers
    most: float
    diagonal: float
    tilted: bool


def optimum(examples: Examples, loss: Loss, l2: float, bias: bool = True, near: float = 1e-4) -> Optimum:
    """near: the gap between objective and bound is at most this part of the objective, if 3,000 passes are enough."""
    found = [
        _logistic(examples, vector, l2, bias)
        if loss == Loss.LOGISTIC
        else _dual(examples, vector, loss, (l2, bias, near))
        for vector in range(examples.labels.vectors)
    ]
    weights, tilts = np.array([one.weights[0] for one in found]), np.array([one.bias[0] for one in found])
    value, _ = objective(examples, flat(weights, tilts, examples), loss, l2)
    return Optimum(weights, tilts, value, sum(one.bound for one in found), max(one.passes for one in found))


def _dual(examples: Examples, vector: int, loss: Loss, wanted: tuple[float, bool, float]) -> Optimum:
    l2, bias, near = wanted
    most = 1.0 / (examples.count * l2)
    hinge = loss == Loss.HINGE
    dual = _Dual(np.zeros(examples.count), np.zeros(examples.count), np.zeros(examples.dim + 1),
                 most if hinge else np.inf, 0.0 if hinge else 0.5 / most, bias)  # fmt: skip
    for number in range(1, _PASSES + 1):
        draws = np.random.default_rng([0, number])
        total = _ascent(examples, dual, vector, draws, int(loss))
        if number % _LOOK and number > 1:
            continue
        squares = float(dual.weights @ dual.weights)
        total = _ascent(examples, dual, vector, None, int(loss))
        value = total / examples.count + 0.5 * l2 * squares
        alpha = float(dual.alpha.sum()) - 0.5 * squares - 0.5 * dual.diagonal * float(dual.alpha @ dual.alpha)
        if value - l2 * alpha <= near * abs(value):
            break
    return Optimum(dual.weights[None, :-1], dual.weights[-1:], value, l2 * alpha, number)


def _ascent(examples: Examples, dual: _Dual, vector: int, draws: np.random.Generator | None, loss: int) -> float:
    """One pass of ascent; without draws none: what the examples cost with the weights as they are."""
    if isinstance(examples, Sparse):
        order = np.arange(examples.count) if draws is None else draws.permutation(examples.count)
        return _sparse(examples.rows, dual, order, vector, -1 if draws is not None else loss)
    assert isinstance(examples, Dense)
    numbers = np.arange(-(-examples.count // BLOCK))
    total = 0.0
    for block in examples.blocks(numbers if draws is None else draws.permutation(numbers)):
        order = np.arange(len(block.rows)) if draws is None else draws.permutation(len(block.rows))
        own = dual._replace(alpha=dual.alpha[block.first - examples.first :],
                            squares=dual.squares[block.first - examples.first :])  # fmt: skip
        signs = _signs(block.label_start, block.label, np.array([block.first, len(block.rows)]), vector)
        total += _dense(block.rows, signs, own, order, -1 if draws is not None else loss)
    return total


@compiled
def _signs(label_start: Numbers, label: Numbers, span: Numbers, vector: int) -> Numbers:
    found = np.full(span[1], -1.0)
    for row in range(span[1]):
        for k in range(label_start[span[0] + row], label_start[span[0] + row + 1]):
            if label[k] == vector:
                found[row] = 1.0
    return found


@compiled
def _sparse(rows: Rows, dual: _Dual, order: Numbers, vector: int, loss: int) -> float:
    start, columns, value, label_start, label = rows
    alpha, squares, weights, most, diagonal, tilted = dual
    total, dim = 0.0, len(weights) - 1
    for row in order:
        score = weights[dim]
        for k in range(start[row], start[row + 1]):
            score += weights[columns[k]] * value[k]
        sign = -1.0
        for k in range(label_start[row], label_start[row + 1]):
            if label[k] == vector:
                sign = 1.0
        if loss >= 0:
            total += cost(loss, sign * score)
            continue
        if squares[row] == 0.0:
            squares[row] = 1.0 if tilted else 0.0
            for k in range(start[row], start[row + 1]):
                squares[row] += float(value[k]) * value[k]
        curve = squares[row] + diagonal
        if curve <= 0.0:
            continue
        slope = sign * score - 1.0 + diagonal * alpha[row]
        new = min(max(alpha[row] - slope / curve, 0.0), most)
        step = (new - alpha[row]) * sign
        if step != 0.0:
            alpha[row] = new
            for k in range(start[row], start[row + 1]):
                weights[columns[k]] += step * value[k]
            if tilted:
                weights[dim] += step
    return total


@compiled
def _dense(rows: Numbers, signs: Numbers, dual: _Dual, order: Numbers, loss: int) -> float:
    alpha, squares, weights, most, diagonal, tilted = dual
    total, dim = 0.0, len(weights) - 1
    for row in order:
        score = weights[dim]
        for k in range(dim):
            score += weights[k] * rows[row, k]
        if loss >= 0:
            total += cost(loss, signs[row] * score)
            continue
        if squares[row] == 0.0:
            squares[row] = 1.0 if tilted else 0.0
            for k in range(dim):
                squares[row] += float(rows[row, k]) * rows[row, k]
        curve = squares[row] + diagonal
        if curve <= 0.0:
            continue
        slope = signs[row] * score - 1.0 + diagonal * alpha[row]
        new = min(max(alpha[row] - slope / curve, 0.0), most)
        step = (new - alpha[row]) * signs[row]
        if step != 0.0:
            alpha[row] = new
            for k in range(dim):
                weights[k] += step * rows[row, k]
            if tilted:
                weights[dim] += step
    return total


def _logistic(examples: Examples, vector: int, l2: float, bias: bool) -> Optimum:
    def at(where: Numbers) -> Point:
        gradient = np.zeros(examples.dim + 1)
        total = _gradient(examples, where[0], gradient, vector)
        gradient /= examples.count
        gradient[-1] *= bias
        return Point(total / examples.count + 0.5 * l2 * float(where[0] @ where[0]), (gradient + l2 * where[0])[None])

    found = minimise(at, np.zeros((1, examples.dim + 1)), l2)
    return Optimum(found.where[:, :-1], found.where[0, -1:], found.value, found.value - found.bound, found.evaluations)


def _gradient(examples: Examples, weights: Numbers, gradient: Numbers, vector: int) -> float:
    if isinstance(examples, Sparse):
        return _sparse_gradient(examples.rows, weights, gradient, vector)
    assert isinstance(examples, Dense)
    total = 0.0
    for block in examples.blocks(np.arange(-(-examples.count // BLOCK))):
        signs = _signs(block.label_start, block.label, np.array([block.first, len(block.rows)]), vector)
        margins = signs * (block.rows @ weights[:-1] + weights[-1])
        paid = np.logaddexp(0.0, -margins)
        slopes = -signs * np.exp(-margins - paid)
        total += float(paid.sum())
        gradient[:-1] += slopes @ block.rows
        gradient[-1] += slopes.sum()
    return total


@compiled
def _sparse_gradient(rows: Rows, weights: Numbers, gradient: Numbers, vector: int) -> float:
    start, columns, value, label_start, label = rows
    total, dim = 0.0, len(weights) - 1
    for row in range(len(start) - 1):
        score = weights[dim]
        for k in range(start[row], start[row + 1]):
            score += weights[columns[k]] * value[k]
        sign = -1.0
        for k in range(label_start[row], label_start[row + 1]):
            if label[k] == vector:
                sign = 1.0
        total += cost(1, sign * score)
        slope = -sign * pull(1, sign * score)
        for k in range(start[row], start[row + 1]):
            gradient[columns[k]] += slope * value[k]
        gradient[dim] += slope
    return total
