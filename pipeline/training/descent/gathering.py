"""Examples as readers give them become the arrays that workers go over, in random order, without a second copy."""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
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
PILES = 32
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


class At(NamedTuple):
    """Where an example stands: a line or a row of a file, from 1."""

    file: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number:,}"


class Said(NamedTuple):
    """What is odd about an example, and whether it is left out."""

    at: At
    what: str
    left: bool


@dataclass
class LeftOut:
    """Examples that cannot be used, and what else is odd.  reasons: how many each reason leaves out."""

    reasons: Counter[str] = field(default_factory=Counter)
    said: list[Said] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.reasons.total()

    def put(self, at: At, why: str) -> None:
        """An example that is left out."""
        self.reasons[why] += 1
        if self.reasons[why] <= NAMED:
            self.said.append(Said(at, why, True))

    def note(self, at: At, what: str) -> None:
        """An example that counts."""
        self.said.append(Said(at, what, False))

    def add(self, more: LeftOut, before: int) -> None:
        """What was found in a part of a file, before which there are so many lines or rows."""
        for at, what, left in more.said:
            named = sum(one.left and one.what == what for one in self.said)
            if not left or named < NAMED:
                self.said.append(Said(at._replace(number=at.number + before), what, left))
        self.reasons.update(more.reasons)

    @contextmanager
    def told(self) -> Iterator[None]:
        """What is refused while this lasts is refused with what was left out: that may be why."""
        try:
            yield
        except ConfigError as error:
            detail = "\n".join([*filter(None, [error.detail]), *self.sentences[:NAMED]])
            raise ConfigError(error.message, detail, error.hint) from error

    @property
    def sentences(self) -> list[str]:
        """A line for each example that is named, and for each reason that leaves out more."""
        more = [(why, number - NAMED) for why, number in self.reasons.items() if number > NAMED]
        named = [f"{at}: {what}; it {'is left out' if left else 'counts'}" for at, what, left in self.said]
        return [*named, *(f"{counted(number, 'more example')} left out: {why}" for why, number in more)]


class Gathering:
    """Takes up examples until all are there; a context.

    Each goes to one of a few piles by chance, in memory that goes back to the system with its pile; then pile after
    pile is mixed into its part of the whole.  So there is never a second copy of more than a pile.
    """

    def __init__(self, name: str, seed: int) -> None:
        """name: of the data, for messages."""
        self._name = name
        self._draws = np.random.default_rng([seed, 0])
        self._piles = [_Pile() for _ in range(PILES)]
        self._some: list[_Dealt] = []
        self.rows = 0
        self._held, self._largest = 0, -1
        self._free = free()

    def __enter__(self) -> Gathering:
        return self

    def __exit__(self, *_: object) -> None:
        for pile in self._piles:
            pile.close()

    def extend(self, more: Iterable[Gathered]) -> None:
        """Raises ConfigError as soon as they do not fit in memory."""
        for one in more:
            if not len(one.lengths):
                continue
            piles = self._draws.integers(0, PILES, len(one.lengths)).astype(np.uint8)
            ends, columns, value = _dealt(piles, one.lengths, one.columns, one.value)
            for pile, first, last in zip(self._piles, [0, *ends[:-1].tolist()], ends.tolist(), strict=True):
                pile.put(columns[first:last], value[first:last])
            self._some.append(_Dealt(piles, one.lengths.copy(), one.label.copy(), one.label_lengths.copy()))
            self._held += sum(array.nbytes for array in one)
            self.rows += len(one.lengths)
            self._largest = max(self._largest, int(one.columns.max(initial=0)))
            if self._held > _PART * self._free:
                raise ConfigError(
                    f"{self._name} does not fit in memory",
                    f"{counted(self.rows, 'example')} take {size(self._held)}, and there are more; "
                    f"{size(self._free)} of memory were free",
                    "train on a part of it, or where there is more memory",
                )

    def finish(self, memory: Memory, dim: int | None, naming: Naming | None = None) -> Sparse:
        """The examples, of which there is one at least, in random order.

        dim: None: as many coordinates as the largest index says.  naming: of classes; default: `classes_of`.
        """
        piles, lengths, label, label_lengths = (np.concatenate(arrays) for arrays in zip(*self._some, strict=True))
        self._some.clear()
        naming = naming or partial(classes_of, name=self._name)
        labels, numbers, label_lengths = naming(label, label_lengths)
        came = np.argsort(piles, kind="stable")
        ends = np.cumsum(np.bincount(piles, minlength=PILES))
        place = np.empty(self.rows, np.int64)
        for first, last in zip([0, *ends[:-1]], ends, strict=True):
            place[came[first:last]] = first + self._draws.permutation(last - first)
        rows = Rows(memory.empty(self.rows + 1, "i8"), memory.empty(int(lengths.sum()), "u4"),
                    memory.empty(int(lengths.sum()), "f4"), memory.empty(self.rows + 1, "i8"),
                    memory.empty(len(numbers), "i4"))  # fmt: skip
        _begin(rows.start, lengths, place)
        _begin(rows.label_start, label_lengths, place)
        _scatter(numbers, label_lengths, rows.label_start[place], rows.label)
        for pile, first, last in zip(self._piles, [0, *ends[:-1]], ends, strict=True):
            own = came[first:last]
            with pile as (columns, value):
                _scatter(columns, lengths[own], rows.start[place[own]], rows.columns)
                _scatter(value, lengths[own], rows.start[place[own]], rows.value)
                del columns, value
        return Sparse(rows, labels, self._largest + 1 if dim is None else dim, int(lengths.max()))


class _Dealt(NamedTuple):
    """piles: of each example (uint8); the others as in Gathered."""

    piles: Numbers
    lengths: Numbers
    label: Numbers
    label_lengths: Numbers


class _Pile:
    """Columns and values, one behind the other, in two files that exist in memory alone."""

    def __init__(self) -> None:
        self._files = [os.memfd_create("hathi", os.MFD_CLOEXEC) for _ in range(2)]

    def put(self, *arrays: Numbers) -> None:
        for file, array in zip(self._files, arrays, strict=True):
            left = array.data.cast("B") if len(array) else memoryview(b"")
            while left:
                left = left[os.write(file, left) :]

    def __enter__(self) -> tuple[Numbers, Numbers]:
        columns, value = (
            np.frombuffer(mmap.mmap(file, 0), kind) if os.fstat(file).st_size else np.empty(0, kind)
            for file, kind in zip(self._files, ("u4", "f4"), strict=True)
        )
        return columns, value

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())


def _begin(start: Numbers, lengths: Numbers, place: Numbers) -> None:
    """start: where each row begins, once rows are at their places."""
    start[0] = 0
    start[1:][place] = lengths
    np.cumsum(start, out=start)


@compiled
def _dealt(piles: Numbers, lengths: Numbers, columns: Numbers, value: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """(where each pile ends, columns and values, pile by pile)."""
    ends = np.zeros(PILES, np.int64)
    for row in range(len(piles)):
        ends[piles[row]] += lengths[row]
    ends = np.cumsum(ends)
    to = np.zeros(PILES, np.int64)
    to[1:] = ends[:-1]
    own_columns, own_value, at = np.empty_like(columns), np.empty_like(value), 0
    for row in range(len(piles)):
        first = to[piles[row]]
        for k in range(lengths[row]):
            own_columns[first + k] = columns[at + k]
            own_value[first + k] = value[at + k]
        to[piles[row]] += lengths[row]
        at += lengths[row]
    return ends, own_columns, own_value


def classes_of(label: Numbers, lengths: Numbers, name: str, known: int = 0) -> tuple[Labels, Numbers, Numbers]:
    """(the classes, each label's number, labels a row) of labels as they stand in the data.

    known: there are the classes 0 to known - 1, without an example as well.  Of two classes the second, the larger one,
    is the vector's positive one: its rows have the label 0, others none.
    """
    classes, numbers = (np.arange(known), label) if known else np.unique(label, return_inverse=True)
    found = of_classes(classes, bool((lengths != 1).any()), len(lengths), name)
    if found.vectors > 1 or found.many:
        return found, numbers.astype(np.int32), lengths
    second = numbers == 1
    return found, np.zeros(int(second.sum()), np.int32), second.astype(np.int64)


def of_classes(classes: Numbers, many: bool, examples: int, name: str) -> Labels:
    """Raises ConfigError where there is one class only, and where there are more than classes of so many examples."""
    if len(classes) < (1 if many else 2):
        only = f"all examples have the label {classes[0]}" if len(classes) else "no example has a label"
        raise ConfigError(f"{name} has one class only", only, "a model tells classes apart: give examples of two")
    if len(classes) > 1000 and 2 * len(classes) > examples:
        raise ConfigError(f"the labels of {name} are no classes",
                          f"{counted(examples, 'example')} have {len(classes):,} different labels",
                          "give each example the number of its class")  # fmt: skip
    return Labels(tuple(classes.tolist()), many)


Naming = Callable[[Numbers, Numbers], tuple[Labels, Numbers, Numbers]]
"""As `classes_of` of labels and how many each row has."""


def as_they_stand(label: Numbers, lengths: Numbers) -> tuple[Labels, Numbers, Numbers]:
    """Labels of a part of the data, by their numbers in it: which classes there are the whole says (`of_classes`)."""
    return Labels((), True), label.astype(np.int32), lengths


@compiled
def _scatter(numbers: Numbers, lengths: Numbers, to: Numbers, into: Numbers) -> None:
    """Puts each row's numbers at its place."""
    at = 0
    for row in range(len(lengths)):
        for k in range(lengths[row]):
            into[to[row] + k] = numbers[at + k]
        at += lengths[row]
