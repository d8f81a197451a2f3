"""What compiled loops take and give: examples, a model, how a step goes, what a part of a pass met."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

Numbers = NDArray[Any]
FREE, GLOBAL, STRIPES, ATOMIC = 0, 1, 2, 3
"""How a worker writes: as if it were alone, under one lock, under a lock a stripe, by atomic additions."""
LOCKS = 64
"""Stripes of the coordinates, or of the classes; one lock more is the bias's."""
LOOKED = 64
"""Of one example in so many the coordinates are looked at again before they are written: who changed them?"""


class Rows(NamedTuple):
    """n sparse examples.  start: (n + 1) int64 into columns (uint32) and value (float32); in a row columns rise.

    label_start: (n + 1) int64 into label (int32): the classes that an example has; of two classes, 0 is the second.
    """

    start: Numbers
    columns: Numbers
    value: Numbers
    label_start: Numbers
    label: Numbers


class Model(NamedTuple):
    """weights: flat, of sparse examples the classes of a coordinate together, of dense ones the coordinates of a class.

    bias: (classes).  shrink: of a step, what it multiplies the weights of each coordinate by: (dim), of dense examples
    (1).  locks: int32, zeros.
    """

    weights: Numbers
    bias: Numbers
    shrink: Numbers
    locks: Numbers


class Step(NamedTuple):
    """rate: of the weights' step; bias_rate: of the bias's, 0: the model has none; bias_shrink: what a step
    multiplies the bias by.  loss: a losses.Loss.  sharing: FREE, GLOBAL, STRIPES or ATOMIC."""

    rate: float
    bias_rate: float
    bias_shrink: float
    loss: int
    sharing: int


class Told(NamedTuple):
    """What a part of a pass met.  cost: of each example before its step, summed over examples and classes.

    moved: examples that pulled at their weights.  conflicts, looks: of locks, those another worker had, and all; else
    coordinates that another worker changed between an example's reading and writing, and those looked at.
    """

    cost: float
    moved: int
    conflicts: int
    looks: int


class Judged(NamedTuple):
    """cost: the sum over examples and classes.  right: examples whose class has the highest score, or whose sign is
    right; where an example may have many classes, right decisions about classes, over the number of classes."""

    cost: float
    right: float
