"""A pass over sparse examples of two classes, compiled: every example moves the weights of the coordinates that it has.

The penalty l2/2 |w|^2 is spread over the examples (Niu et al. 2011): one that has coordinate i pays half of l2 * n/df_i
* w_i^2, where df_i of n examples have it, so that the mean over the examples is the penalty, and no step touches what
its example has not.  A step takes the penalty implicitly, w_i = (w_i + rate * pull * y * x_i) / (1 + rate * l2 *
n/df_i): no rate can overshoot, and for a rate towards 0 it is the gradient's step.
"""

from __future__ import annotations

from pipeline.training.descent.compiled import ask, atomic_add, compiled, inlined, lock, unlock
from pipeline.training.descent.losses import cost, pull
from pipeline.training.descent.values import ATOMIC, GLOBAL, LOCKS, LOOKED, Model, Numbers, Rows, Step, Told

AHEAD = 4
"""A row is asked for from memory so many steps before its turn: in random order much of a step is waiting for it."""
LINE = 16
"""Numbers of 4 bytes in a line of memory."""


@inlined
def _read(index: Numbers, weights: Numbers, first: int, seen: Numbers) -> None:
    for k in range(len(seen)):
        seen[k] = weights[index[first + k]]


@inlined
def _changed(index: Numbers, weights: Numbers, first: int, seen: Numbers) -> int:
    changed = 0
    for k in range(len(seen)):
        changed += seen[k] != weights[index[first + k]]
    return changed


@compiled
def freely(rows: Rows, model: Model, order: Numbers, step: Step, seen: Numbers) -> Told:
    """A step for each example of `order`, by a worker that writes as if it were alone.

    seen: of the weights' type, as long as the longest example where conflicts are counted; else of length 0.
    """
    start, index, value, label_start, _ = rows
    weights, bias, shrink, _ = model
    kind = weights.dtype.type  # a product with a float64 would be one
    one, rate, tilt, upright = kind(1.0), kind(step.rate), kind(step.bias_rate), kind(step.bias_shrink)
    total, moved, conflicts, looks = 0.0, 0, 0, 0
    for at in range(len(order)):
        if at + AHEAD < len(order):
            later = order[at + AHEAD]
            for k in range(start[later], start[later + 1], LINE):
                ask(index, k)
                ask(value, k)
        row = order[at]
        first, last = start[row], start[row + 1]
        looked = len(seen) > 0 and at % LOOKED == 0
        if looked:
            _read(index, weights, first, seen[: last - first])
        score = kind(0.0)
        for k in range(first, last):
            score += value[k] * weights[index[k]]
        sign = one if label_start[row + 1] > label_start[row] else -one
        margin = sign * (score + bias[0])
        total += cost(step.loss, margin)
        pulled = kind(pull(step.loss, margin))
        if looked:
            conflicts += _changed(index, weights, first, seen[: last - first])
            looks += last - first
        if pulled != 0.0:
            moved += 1
            by = rate * sign * pulled
            for k in range(first, last):
                i = index[k]
                weights[i] = shrink[i] * (weights[i] + by * value[k])
        else:
            for k in range(first, last):
                weights[index[k]] *= shrink[index[k]]
        if step.bias_rate > 0.0:
            bias[0] = upright * (bias[0] + tilt * sign * pulled)
    return Told(total, moved, conflicts, looks)


@compiled
def guarded(rows: Rows, model: Model, order: Numbers, step: Step, seen: Numbers) -> Told:
    """As `freely`, where no worker's write is lost: under one lock, which makes an example one step for everybody; or
    under the lock of a coordinate's stripe or by atomic additions, for each write."""
    start, index, value, label_start, _ = rows
    weights, bias, shrink, locks = model
    kind = weights.dtype.type
    one, rate, tilt, upright = kind(1.0), kind(step.rate), kind(step.bias_rate), kind(step.bias_shrink)
    width = (len(weights) + LOCKS - 1) // LOCKS
    total, moved, conflicts, looks = 0.0, 0, 0, 0
    for at in range(len(order)):
        row = order[at]
        first, last = start[row], start[row + 1]
        looked = step.sharing == ATOMIC and len(seen) > 0 and at % LOOKED == 0
        if step.sharing == GLOBAL:
            conflicts += lock(locks, 0)
            looks += 1
        if looked:
            _read(index, weights, first, seen[: last - first])
        score = kind(0.0)
        for k in range(first, last):
            score += value[k] * weights[index[k]]
        sign = one if label_start[row + 1] > label_start[row] else -one
        margin = sign * (score + bias[0])
        total += cost(step.loss, margin)
        pulled = kind(pull(step.loss, margin))
        if looked:
            conflicts += _changed(index, weights, first, seen[: last - first])
            looks += last - first
        moved += pulled != 0.0
        by = rate * sign * pulled
        tilted = tilt * sign * pulled
        if step.sharing == GLOBAL:
            for k in range(first, last):
                i = index[k]
                weights[i] = shrink[i] * (weights[i] + by * value[k])
            if step.bias_rate > 0.0:
                bias[0] = upright * (bias[0] + tilted)
            unlock(locks, 0)
        elif step.sharing == ATOMIC:
            for k in range(first, last):
                i = index[k]
                atomic_add(weights, i, shrink[i] * (weights[i] + by * value[k]) - weights[i])
            if step.bias_rate > 0.0:
                atomic_add(bias, 0, upright * (bias[0] + tilted) - bias[0])
        else:
            held = -1
            for k in range(first, last):
                i = index[k]
                stripe = i // width
                if stripe != held:
                    if held >= 0:
                        unlock(locks, held)
                    held = stripe
                    conflicts += lock(locks, held)
                    looks += 1
                weights[i] = shrink[i] * (weights[i] + by * value[k])
            if held >= 0:
                unlock(locks, held)
            if step.bias_rate > 0.0:
                conflicts += lock(locks, LOCKS)
                looks += 1
                bias[0] = upright * (bias[0] + tilted)
                unlock(locks, LOCKS)
    return Told(total, moved, conflicts, looks)
