"""A pass over sparse examples of more than two classes, compiled: each class against the rest, all in one reading.

The weights of a coordinate stand together, so that an example's coordinate is looked up once for all classes.  Steps
are those of `two_classes`.
"""

from __future__ import annotations

import numpy as np

from pipeline.training.descent.compiled import atomic_add, compiled, lock, unlock
from pipeline.training.descent.losses import cost, pull
from pipeline.training.descent.values import (
    ATOMIC,
    GLOBAL,
    LOCKS,
    LOOKED,
    STRIPES,
    Judged,
    Model,
    Numbers,
    Rows,
    Step,
    Told,
)


@compiled
def walk(rows: Rows, model: Model, order: Numbers, step: Step, seen: Numbers) -> Told:
    """A step for each example of `order`.

    seen: of the weights' type, as long as the longest example where conflicts are counted; else of length 0.
    """
    start, index, value, label_start, label = rows
    weights, bias, shrink, locks = model
    kind = weights.dtype.type
    one, rate, tilt, upright = kind(1.0), kind(step.rate), kind(step.bias_rate), kind(step.bias_shrink)
    classes = len(bias)
    width = (len(shrink) + LOCKS - 1) // LOCKS
    score, pulls = np.zeros(classes, weights.dtype), np.zeros(classes, weights.dtype)
    total, moved, conflicts, looks = 0.0, 0, 0, 0
    for at in range(len(order)):
        row = order[at]
        first, last = start[row], start[row + 1]
        looked = len(seen) > 0 and at % LOOKED == 0
        if step.sharing == GLOBAL:
            conflicts += lock(locks, 0)
            looks += 1
        if looked:
            for k in range(first, last):
                seen[k - first] = weights[index[k] * classes]
        score[:] = bias
        for k in range(first, last):
            base = index[k] * classes
            for c in range(classes):
                score[c] += value[k] * weights[base + c]
        pulls[:] = -one
        for k in range(label_start[row], label_start[row + 1]):
            pulls[label[k]] = one
        pulling = False
        for c in range(classes):
            sign = pulls[c]
            total += cost(step.loss, sign * score[c])
            pulls[c] = sign * kind(pull(step.loss, sign * score[c]))
            pulling |= pulls[c] != 0.0
        moved += pulling
        if looked:
            looks += last - first
            for k in range(first, last):
                conflicts += seen[k - first] != weights[index[k] * classes]
        held = -1
        for k in range(first, last):
            i = index[k]
            base, shrunk, by = i * classes, shrink[i], rate * value[k]
            if step.sharing == ATOMIC:
                for c in range(classes):
                    old = weights[base + c]
                    atomic_add(weights, base + c, shrunk * (old + by * pulls[c]) - old)
                continue
            if step.sharing == STRIPES and i // width != held:
                if held >= 0:
                    unlock(locks, held)
                held = i // width
                conflicts += lock(locks, held)
                looks += 1
            for c in range(classes):
                weights[base + c] = shrunk * (weights[base + c] + by * pulls[c])
        if held >= 0:
            unlock(locks, held)
        if step.bias_rate > 0.0:
            if step.sharing == STRIPES:
                conflicts += lock(locks, LOCKS)
                looks += 1
            for c in range(classes):
                if step.sharing == ATOMIC:
                    atomic_add(bias, c, upright * (bias[c] + tilt * pulls[c]) - bias[c])
                else:
                    bias[c] = upright * (bias[c] + tilt * pulls[c])
            if step.sharing == STRIPES:
                unlock(locks, LOCKS)
        if step.sharing == GLOBAL:
            unlock(locks, 0)
    return Told(total, moved, conflicts, looks)


@compiled
def judge(rows: Rows, model: Model, span: Numbers, loss: int, many: bool) -> Judged:
    """What the examples span[0] to span[1] cost, and how many are right.  many: an example may have many classes."""
    start, index, value, label_start, label = rows
    weights, bias, _, _ = model
    classes = len(bias)
    score, signs = np.zeros(classes), np.zeros(classes)
    total, right = 0.0, 0.0
    for row in range(span[0], span[1]):
        score[:] = bias
        for k in range(start[row], start[row + 1]):
            base = index[k] * classes
            for c in range(classes):
                score[c] += value[k] * weights[base + c]
        signs[:] = -1.0
        for k in range(label_start[row], label_start[row + 1]):
            signs[label[k]] = 1.0
        hits = 0
        for c in range(classes):
            total += cost(loss, signs[c] * score[c])
            hits += (score[c] > 0.0) == (signs[c] > 0.0)
        if many or classes == 1:
            right += hits / classes
        else:
            right += signs[np.argmax(score)] > 0.0
    return Judged(total, right)
