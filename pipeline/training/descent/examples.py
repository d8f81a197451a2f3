"""Examples as workers go over them: sparse ones in memory, dense ones in a file that is read in blocks.

Both are in random order already, so that any part of them is a sample, and blocks of neighbours in random order are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from pipeline.errors import ConfigError
from pipeline.training.descent import dense, more_classes, two_classes
from pipeline.training.descent.compiled import compiled
from pipeline.training.descent.values import FREE, Judged, Model, Numbers, Rows, Step, Told

BLOCK = 64
"""Examples that lie together and are read together."""


@dataclass(frozen=True)
class Labels:
    """classes: their numbers in the data, rising.  many: an example may have many classes, or none."""

    classes: tuple[int, ...]
    many: bool = False

    @property
    def vectors(self) -> int:
        """Of weights: one for two classes, else one a class."""
        return 1 if len(self.classes) == 2 and not self.many else len(self.classes)


class Examples(Protocol):
    """count: examples.  dim: coordinates, from 0.  labels: what their classes are called."""

    @property
    def count(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def labels(self) -> Labels: ...
    def part(self, first: int, last: int) -> Examples:
        """The examples from first to before last."""

    def order(self, draws: np.random.Generator, rows: bool) -> Numbers:
        """What `walk` takes, each once.  rows: single examples in random order instead of blocks."""

    def penalties(self) -> Numbers:
        """n/df of each coordinate, 0 where no example has it; (1) where all have all."""

    def scale(self) -> tuple[float, float]:
        """Means: |x|^2 of an example, and how many coordinates it has."""

    def walk(self, model: Model, part: Numbers, step: Step, counted: bool) -> Told:
        """Steps for a part of an order.  counted: whether conflicts are counted where no lock counts them."""

    def judge(self, model: Model, loss: int) -> Judged:
        """All examples."""


@dataclass(frozen=True)
class Sparse:
    """rows: of these examples.  longest: coordinates of the longest example."""

    rows: Rows
    labels: Labels
    dim: int
    longest: int

    @property
    def count(self) -> int:
        return len(self.rows.start) - 1

    def part(self, first: int, last: int) -> Sparse:
        rows = self.rows
        return replace(self, rows=rows._replace(start=rows.start[first : last + 1],
                                                label_start=rows.label_start[first : last + 1]))  # fmt: skip

    def order(self, draws: np.random.Generator, rows: bool) -> Numbers:
        if rows:
            return draws.permutation(self.count).astype(np.uint32)
        found = draws.permutation(-(-self.count // BLOCK)).astype(np.uint32)[:, None] * np.uint32(BLOCK)
        flat = (found + np.arange(BLOCK, dtype=np.uint32)).ravel()
        return flat[flat < self.count]

    def penalties(self) -> Numbers:
        have = _have(self.rows.start, self.rows.columns, self.dim)
        return np.divide(self.count, have, out=np.zeros(self.dim), where=have > 0)

    def scale(self) -> tuple[float, float]:
        first, last = int(self.rows.start[0]), int(self.rows.start[min(self.count, 20_000)])
        count = min(self.count, 20_000)
        values = self.rows.value[first:last]
        return float(np.square(values, dtype=np.float64).sum()) / count, (last - first) / count

    def walk(self, model: Model, part: Numbers, step: Step, counted: bool) -> Told:
        seen = np.empty(self.longest if counted else 0, model.weights.dtype)
        if len(model.bias) > 1:
            return more_classes.walk(self.rows, model, part, step, seen)
        kernel = two_classes.freely if step.sharing == FREE else two_classes.guarded
        return kernel(self.rows, model, part, step, seen)

    def judge(self, model: Model, loss: int) -> Judged:
        return more_classes.judge(self.rows, model, np.array([0, self.count]), loss, self.labels.many)


@compiled
def _have(start: Numbers, index: Numbers, dim: int) -> Numbers:
    found = np.zeros(dim, np.int64)
    for k in range(start[0], start[-1]):
        found[index[k]] += 1
    return found


@dataclass(frozen=True)
class Dense:
    """file: a descriptor of rows of dim float32 behind each other; this is the part of them from first on.

    label_start, label: of all rows of the file, as in Rows.
    """

    file: int
    label_start: Numbers
    label: Numbers
    labels: Labels
    dim: int
    count: int
    first: int = 0

    def part(self, first: int, last: int) -> Dense:
        return replace(self, first=self.first + first, count=last - first)

    def order(self, draws: np.random.Generator, rows: bool) -> Numbers:
        """Numbers of blocks: rows of dense examples are never read alone."""
        return draws.permutation(-(-self.count // BLOCK)).astype(np.uint32)

    def penalties(self) -> Numbers:
        return np.ones(1)

    def scale(self) -> tuple[float, float]:
        found = [float(np.square(block.rows, dtype=np.float64).sum()) for block in self.blocks(range(256))]
        return sum(found) / min(self.count, 256 * BLOCK), float(self.dim)

    def walk(self, model: Model, part: Numbers, step: Step, counted: bool) -> Told:
        cost, moved, conflicts, looks = 0.0, 0, 0, 0
        for block in self.blocks(part):
            told = dense.walk(block, model, step, counted)
            cost, moved = cost + told.cost, moved + told.moved
            conflicts, looks = conflicts + told.conflicts, looks + told.looks
        return Told(cost, moved, conflicts, looks)

    def judge(self, model: Model, loss: int) -> Judged:
        found = [dense.judge(block, model, loss, self.labels.many) for block in self.blocks(range(self.count))]
        return Judged(sum(one.cost for one in found), sum(one.right for one in found))

    def blocks(self, numbers: Numbers | range) -> _Blocks:
        """The blocks of these numbers that there are, in one buffer that each of them fills anew."""
        return _Blocks(self, numbers)


class _Blocks:
    def __init__(self, examples: Dense, numbers: Numbers | range) -> None:
        self._of, self._numbers = examples, numbers
        self._at = 0
        self._buffer = np.empty((min(BLOCK, examples.count), examples.dim), np.float32)

    def __iter__(self) -> _Blocks:
        return self

    def __next__(self) -> dense.Block:
        if self._at >= len(self._numbers):
            raise StopIteration
        first = int(self._numbers[self._at]) * BLOCK
        self._at += 1
        if first >= self._of.count:
            raise StopIteration
        rows = self._buffer[: min(BLOCK, self._of.count - first)]
        number = self._of.first + first
        into, at = rows.data.cast("B"), number * 4 * self._of.dim
        while into:
            got = os.preadv(self._of.file, [into], at)
            if not got:
                raise ConfigError("the examples' file ended early", "", "type the same command again")
            into, at = into[got:], at + got
        return dense.Block(rows, number, self._of.label_start, self._of.label)
