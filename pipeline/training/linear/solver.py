"""Goes to the optimum of a strongly convex function by L-BFGS, and says how far from it the end can be.

Where f is convex but for a term l2/2 |w|^2, every point w obeys f(w) - f* <= |gradient|^2 / (2 l2).  The solver ends
when this bound is at most a millionth of f(w): the end is known to be the optimum, whatever number of steps it takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

TOLERANCE = 1e-6
"""The bound, as a part of the objective, at which the optimum is reached."""
_PAIRS = 8
_FLAT = 0.9  # a step is long enough when the slope along it has fallen to this part (Wolfe's second condition)
_NOISE = 2e-8  # of f: what sums of float32 products may differ by
_TRIES = 30  # evaluations of one line search


class Point(NamedTuple):
    """value: of the function; gradient: float64, of the shape of the variables."""

    value: float
    gradient: Vector


Function = Callable[[Vector], Point]
Scaling = Callable[[Vector], Vector]
"""A positive definite matrix times a gradient: near to the inverse of the second derivative."""

Told = Callable[[int, float, float], None]


@dataclass(frozen=True)
class Optimum:
    """where: the variables.  bound: the objective is at most this much above the optimum's.

    reached: the bound is within TOLERANCE; else no step improved the value any more, which float32 data can cause.
    """

    where: Vector
    value: float
    bound: float
    steps: int
    evaluations: int
    reached: bool


def minimise(
    function: Function,
    start: Vector,
    l2: float,
    scaling: Scaling = lambda gradient: gradient,
    told: Told = lambda *_: None,
) -> Optimum:
    """function: l2-strongly convex.  told: hears steps, value and bound before each step and at the end."""
    where, here = start, function(start)
    pairs: deque[tuple[Vector, Vector, float]] = deque(maxlen=_PAIRS)
    steps, evaluations = 0, 1
    while True:
        bound = _squared(here.gradient) / (2.0 * l2)
        told(steps, here.value, bound)
        if bound <= TOLERANCE * abs(here.value):
            return Optimum(where, here.value, bound, steps, evaluations, True)
        direction = -_scaled(here.gradient, pairs, scaling)
        length, there, tried = _along(function, where, here, direction)
        evaluations += tried
        if there is None and pairs:  # old pairs mislead: begin anew from here
            pairs.clear()
            continue
        if there is None:
            return Optimum(where, here.value, bound, steps, evaluations, False)
        moved, turned = length * direction, there.gradient - here.gradient
        curved = float(np.vdot(moved, turned))
        if curved > 1e-12 * np.sqrt(_squared(moved) * _squared(turned)):
            pairs.append((moved, turned, curved))
        where, here, steps = where + moved, there, steps + 1


def _scaled(gradient: Vector, pairs: deque[tuple[Vector, Vector, float]], scaling: Scaling) -> Vector:
    """The inverse second derivative, as the pairs tell it, times the gradient."""
    found, shares = gradient.copy(), []
    for moved, turned, curved in reversed(pairs):
        shares.append(float(np.vdot(moved, found)) / curved)
        found -= shares[-1] * turned
    found = scaling(found)
    if pairs:
        _, turned, curved = pairs[-1]
        found *= curved / float(np.vdot(turned, scaling(turned)))
    for (moved, turned, curved), share in zip(pairs, reversed(shares), strict=True):
        found += (share - float(np.vdot(turned, found)) / curved) * moved
    return found


def _along(function: Function, where: Vector, here: Point, direction: Vector) -> tuple[float, Point | None, int]:
    """A step length that lowers the value and flattens the slope; None where there is none; evaluations."""
    steep = float(np.vdot(here.gradient, direction))
    if not steep < 0.0:
        return 0.0, None, 0
    short, long = 0.0, float("inf")
    slope_short, slope_long = steep, 0.0
    length = 1.0
    for tried in range(1, _TRIES + 1):
        there = function(where + length * direction)
        slope = float(np.vdot(there.gradient, direction))
        lower = there.value <= here.value + _NOISE * abs(here.value)
        if lower and abs(slope) <= _FLAT * -steep:
            return length, there, tried
        if np.isfinite(slope) and slope < 0.0 and lower:
            short, slope_short = length, slope
        else:
            long, slope_long = length, slope
        if long == float("inf"):
            length *= 4.0
            continue
        part = slope_short / (slope_short - slope_long) if np.isfinite(slope_long) and slope_long > 0.0 else 0.5
        length = short + min(max(part, 0.1), 0.9) * (long - short)
    return 0.0, None, _TRIES


def _squared(vector: Vector) -> float:
    return float(np.vdot(vector, vector))
