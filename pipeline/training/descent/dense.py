"""A pass over a block of dense examples, compiled: eight examples move the weights together.

What eight examples say of the same weights is added up and written once, for the weights are longer than the nearest
cache.  Every example has every coordinate, so the penalty shrinks all weights alike; a class at which none of the eight
pulls is shrunk later, by a factor that its scores know of.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.training.descent.compiled import atomic_add, compiled, inlined, lock, unlock
from pipeline.training.descent.losses import cost, pull
from pipeline.training.descent.values import ATOMIC, FREE, GLOBAL, LOCKS, Judged, Model, Numbers, Step, Told

TOGETHER = 8
_LOOKED = 64  # coordinates of a class that are looked at again


class Block(NamedTuple):
    """rows: (m, dim) float32.  first: the number of the first of them in label_start and label (values.Rows)."""

    rows: Numbers
    first: int
    label_start: Numbers
    label: Numbers


@inlined
def _scores(rows: Numbers, base: int, count: int, weights: Numbers, found: Numbers) -> None:
    """found: (TOGETHER), the products of `count` rows with the weights of a class."""
    dim, row, kind = rows.shape[1], 0, weights.dtype.type
    while row + 4 <= count:
        a, b, c, d = rows[base + row], rows[base + row + 1], rows[base + row + 2], rows[base + row + 3]
        p, q, r, s = kind(0.0), kind(0.0), kind(0.0), kind(0.0)
        for k in range(dim):
            w = weights[k]
            p += w * a[k]
            q += w * b[k]
            r += w * c[k]
            s += w * d[k]
        found[row], found[row + 1], found[row + 2], found[row + 3] = p, q, r, s
        row += 4
    while row < count:
        a, p = rows[base + row], kind(0.0)
        for k in range(dim):
            p += weights[k] * a[k]
        found[row] = p
        row += 1


@inlined
def _moved(rows: Numbers, base: int, by: Numbers, weights: Numbers, factor: float) -> None:
    """weights = factor * weights + the sum of by[r] * rows[base + r]; rows whose `by` is 0 are not read."""
    kind, active = weights.dtype.type, np.empty(TOGETHER + 3, np.int64)
    count, scaled = 0, kind(factor)
    for row in range(len(by)):
        if by[row] != 0.0:
            active[count] = row
            count += 1
    for at in range(0, count, 4):
        a, p = rows[base + active[at]], by[active[at]]
        if at + 4 <= count:
            b, c, d = rows[base + active[at + 1]], rows[base + active[at + 2]], rows[base + active[at + 3]]
            q, r, s = by[active[at + 1]], by[active[at + 2]], by[active[at + 3]]
            for k in range(len(weights)):
                weights[k] = scaled * weights[k] + p * a[k] + q * b[k] + r * c[k] + s * d[k]
        else:
            for more in range(at, count):
                a, p = rows[base + active[more]], by[active[more]]
                for k in range(len(weights)):
                    weights[k] = scaled * weights[k] + p * a[k]
                scaled = kind(1.0)
        scaled = kind(1.0)


@inlined
def _added(rows: Numbers, base: int, by: Numbers, weights: Numbers, start: int, factor: float) -> None:
    """As `_moved`, by atomic additions to the weights from `start` on."""
    less = weights.dtype.type(factor - 1.0)
    for k in range(rows.shape[1]):
        more = less * weights[start + k]
        for row in range(len(by)):
            more += by[row] * rows[base + row, k]
        atomic_add(weights, start + k, more)


@compiled
def walk(block: Block, model: Model, step: Step, counted: bool) -> Told:
    """A step for the examples of a block, eight at a time.  counted: whether conflicts of free writes are counted."""
    rows, number, label_start, label = block
    weights, bias, shrink, locks = model
    kind = weights.dtype.type
    dim, classes = rows.shape[1], len(bias)
    pending = np.ones(classes)
    scores, pulls = np.zeros((classes, TOGETHER), weights.dtype), np.zeros((classes, TOGETHER), weights.dtype)
    seen = np.zeros(min(_LOOKED, dim), weights.dtype)
    total, moved, conflicts, looks = 0.0, 0, 0, 0
    for base in range(0, len(rows), TOGETHER):
        count = min(TOGETHER, len(rows) - base)
        shrunk, upright = shrink[0] ** count, step.bias_shrink**count
        looked = counted and step.sharing in (FREE, ATOMIC)
        if step.sharing == GLOBAL:
            conflicts += lock(locks, 0)
            looks += 1
        if looked:
            seen[:] = weights[: len(seen)]
        pulls[:] = kind(-1.0)
        for row in range(count):
            for k in range(label_start[number + base + row], label_start[number + base + row + 1]):
                pulls[label[k], row] = kind(1.0)
        for c in range(classes):
            _scores(rows, base, count, weights[c * dim : (c + 1) * dim], scores[c])
        if looked:
            looks += len(seen)
            for k in range(len(seen)):
                conflicts += seen[k] != weights[k]
        for c in range(classes):
            pulling, tilted = False, 0.0
            for row in range(count):
                sign = pulls[c, row]
                margin = sign * (pending[c] * scores[c, row] + bias[c])
                total += cost(step.loss, margin)
                pulled = sign * pull(step.loss, margin)
                tilted += pulled
                pulls[c, row] = kind(step.rate * shrunk * pulled)
                pulling |= pulled != 0.0
                moved += pulled != 0.0
            factor = pending[c] * shrunk
            tilted *= step.bias_rate
            if step.sharing == ATOMIC:
                if pulling:
                    _added(rows, base, pulls[c, :count], weights, c * dim, factor)
                if step.bias_rate > 0.0:
                    atomic_add(bias, c, kind(upright * (bias[c] + tilted) - bias[c]))
            else:
                if step.sharing != FREE and step.sharing != GLOBAL:
                    conflicts += lock(locks, c % LOCKS)
                    looks += 1
                if pulling:
                    _moved(rows, base, pulls[c, :count], weights[c * dim : (c + 1) * dim], factor)
                if step.bias_rate > 0.0:
                    bias[c] = kind(upright * (bias[c] + tilted))
                if step.sharing != FREE and step.sharing != GLOBAL:
                    unlock(locks, c % LOCKS)
            pending[c] = 1.0 if pulling else factor
        if step.sharing == GLOBAL:
            unlock(locks, 0)
    for c in range(classes):
        if pending[c] == 1.0:
            continue
        if step.sharing != FREE and step.sharing != ATOMIC:
            lock(locks, 0 if step.sharing == GLOBAL else c % LOCKS)
        if step.sharing == ATOMIC:
            for k in range(c * dim, (c + 1) * dim):
                atomic_add(weights, k, kind((pending[c] - 1.0) * weights[k]))
        else:
            for k in range(c * dim, (c + 1) * dim):
                weights[k] *= kind(pending[c])
        if step.sharing != FREE and step.sharing != ATOMIC:
            unlock(locks, 0 if step.sharing == GLOBAL else c % LOCKS)
    return Told(total, moved, conflicts, looks)


@compiled
def judge(block: Block, model: Model, loss: int, many: bool) -> Judged:
    """What the examples of a block cost, and how many are right.  many: an example may have many classes."""
    rows, number, label_start, label = block
    weights, bias, _, _ = model
    dim, classes = rows.shape[1], len(bias)
    scores, signs = np.zeros((classes, TOGETHER), weights.dtype), np.zeros((classes, TOGETHER))
    total, right = 0.0, 0.0
    for base in range(0, len(rows), TOGETHER):
        count = min(TOGETHER, len(rows) - base)
        signs[:] = -1.0
        for row in range(count):
            for k in range(label_start[number + base + row], label_start[number + base + row + 1]):
                signs[label[k], row] = 1.0
        for c in range(classes):
            _scores(rows, base, count, weights[c * dim : (c + 1) * dim], scores[c])
        for row in range(count):
            hits, best = 0, 0
            for c in range(classes):
                scores[c, row] += bias[c]
                total += cost(loss, signs[c, row] * scores[c, row])
                hits += (scores[c, row] > 0.0) == (signs[c, row] > 0.0)
                best = c if scores[c, row] > scores[best, row] else best
            if many or classes == 1:
                right += hits / classes
            else:
                right += signs[best, row] > 0.0
    return Judged(total, right)
