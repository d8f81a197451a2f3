"""Examples as readers give them become the arrays that workers go over, in random order, without a second copy."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pipeline.amounts import counted, size
from pipeline.errors import ConfigError
from pipeline.training.descent.compiled import compiled
from pipeline.training.descent.examples import Labels, Sparse
from pipeline.training.descent.memory import Memory, free
from pipeline.training.descent.values import Numbers, Rows

NAMED = 5
"""Examples that are named for each reason to leave them out; the others are counted."""
_PART = 0.9  # of the free memory that examples may take


class Gathered(NamedTuple):
    """Some examples.  columns (uint32), value (float32): of all, one after the other; lengths: how many of each.

    label (int64), label_lengths: their classes, likewise.
    """

    columns: Numbers
    value: Numbers
    lengths: Numbers
    label: Numbers
    label_lengths: Numbers


@dataclass
class LeftOut:
    """Examples that cannot be used, and what else is odd.  reasons: how many each reason leaves out."""

    reasons: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.reasons.total()

    def put(self, where: str, why: str) -> None:
        """An example that is left out."""
        self.reasons[why] += 1
        if self.reasons[why] <= NAMED:
            self.said.append(f"{where}: {why}; it is left out")

    def note(self, where: str, what: str) -> None:
        """An example that counts."""
        self.said.append(f"{where}: {what}; it counts")

    @property
    def sentences(self) -> list[str]:
        """A line for each example that is named, and for each reason that leaves out more."""
        more = [(why, number - NAMED) for why, number in self.reasons.items() if number > NAMED]
        return [*self.said, *(f"{counted(number, 'more example')} left out: {why}" for why, number in more)]


class Gathering:
    """Takes up examples until all are there."""

    def __init__(self, name: str) -> None:
        """name: of the data, for messages."""
        self._name = name
        self._some: list[Gathered] = []
        self._held, self._rows = 0, 0
        self._free = free()

    def extend(self, more: Iterable[Gathered]) -> None:
        """Raises ConfigError as soon as they do not fit in memory."""
        for one in more:
            if len(one.lengths):
                self._some.append(Gathered(*map(_own, one)))
                self._held += sum(array.nbytes for array in one)
                self._rows += len(one.lengths)
            if self._held > _PART * self._free:
                raise ConfigError(
                    f"{self._name} does not fit in memory",
                    f"{counted(self._rows, 'example')} take {size(self._held)}, and there are more; "
                    f"{size(self._free)} of memory were free",
                    "train on a part of it, or where there is more memory",
                )

    def finish(self, memory: Memory, seed: int, dim: int | None) -> Sparse:
        """The examples in random order.  dim: None: as many coordinates as the largest index says."""
        if not self._rows:
            raise ConfigError(f"{self._name} holds no example", "", "")
        start, label_start = np.zeros(self._rows + 1, np.int64), np.zeros(self._rows + 1, np.int64)
        placed = _Placed(self._rows, seed)
        lengths = placed.sorted(np.concatenate([one.lengths for one in self._some]))
        label_lengths = np.concatenate([one.label_lengths for one in self._some])
        labels, numbers, label_lengths = classes_of(
            np.concatenate([one.label for one in self._some]), label_lengths, self._name
        )
        np.cumsum(lengths, out=start[1:])
        np.cumsum(placed.sorted(label_lengths), out=label_start[1:])
        total = int(start[-1])
        rows = Rows(memory.empty(len(start), "i8"), memory.empty(total, "u4"), memory.empty(total, "f4"),
                    memory.empty(len(start), "i8"), memory.empty(int(label_start[-1]), "i4"))  # fmt: skip
        rows.start[:], rows.label_start[:] = start, label_start
        _scatter(numbers, label_lengths, rows.label_start[placed.of], rows.label)
        largest, first = -1, 0
        while self._some:
            one = self._some.pop(0)
            to = rows.start[placed.of[first : first + len(one.lengths)]]
            _scatter(one.columns, one.lengths, to, rows.columns)
            _scatter(one.value, one.lengths, to, rows.value)
            largest = max(largest, int(one.columns.max(initial=0)))
            first += len(one.lengths)
        return Sparse(rows, labels, largest + 1 if dim is None else dim, int(lengths.max()))


class _Placed:
    """Where each example goes: `of` its number in the order that it came in."""

    def __init__(self, count: int, seed: int) -> None:
        self.of = np.random.default_rng([seed, 0]).permutation(count)

    def sorted(self, numbers: Numbers) -> Numbers:
        found = np.empty_like(numbers)
        found[self.of] = numbers
        return found


def classes_of(label: Numbers, lengths: Numbers, name: str, known: int = 0) -> tuple[Labels, Numbers, Numbers]:
    """(the classes, each label's number, labels a row) of labels as they stand in the data.

    known: there are the classes 0 to known - 1, without an example as well.  Of two classes the second, the larger one,
    is the vector's positive one: its rows have the label 0, others none.
    """
    classes, numbers = (np.arange(known), label) if known else np.unique(label, return_inverse=True)
    many = bool((lengths != 1).any())
    found = Labels(tuple(classes.tolist()), many)
    if len(classes) < (1 if many else 2):
        only = f"all examples have the label {classes[0]}" if len(classes) else "no example has a label"
        raise ConfigError(f"{name} has one class only", only, "a model tells classes apart: give examples of two")
    if len(classes) > 1000 and 2 * len(classes) > len(lengths):
        raise ConfigError(f"the labels of {name} are no classes",
                          f"{counted(len(lengths), 'example')} have {len(classes):,} different labels",
                          "give each example the number of its class")  # fmt: skip
    if found.vectors > 1 or many:
        return found, numbers.astype(np.int32), lengths
    second = numbers == 1
    return found, np.zeros(int(second.sum()), np.int32), second.astype(np.int64)


def _own(array: Numbers) -> Numbers:
    """A copy in pages of its own, which go back to the system with it."""
    if not array.nbytes:
        return array.copy()
    found: Numbers = np.frombuffer(mmap.mmap(-1, array.nbytes), array.dtype)
    found[:] = array
    return found


@compiled
def _scatter(numbers: Numbers, lengths: Numbers, to: Numbers, into: Numbers) -> None:
    """Puts each row's numbers at its place."""
    at = 0
    for row in range(len(lengths)):
        for k in range(lengths[row]):
            into[to[row] + k] = numbers[at + k]
        at += lengths[row]
