"""Labels and images -> examples: which row of the labels speaks for an item, and what becomes of every other row.

Pure: numbers in, numbers out.  Rows are those of the labels (of the dataset that is extended behind them) and the
items with an image that no row names.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NONE = -1
RULES = ("refuse", "first", "last", "leave-out")
"""What becomes of an item whose rows say different labels."""
UNREADABLE, EMPTY, TWO, UNNAMED = "no item", "empty label", "two labels", "no row"
"""Why a row has no label."""

Ints = NDArray[np.int64]
Codes = NDArray[np.int32]


@dataclass(frozen=True)
class Rows:
    """Of labels or images: which item (partner int64, item uint64), and what label and side (NONE for no word)."""

    partners: NDArray[np.int64]
    items: NDArray[np.uint64]
    labels: Codes
    sides: Codes

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Joined:
    """labels, sides: of each image, NONE for one that is no example.  without_image: places of rows of the labels that
    speak for an item without one.  two: places of the first two rows of each item whose rows differ, where no rule says
    which holds; none is an example then.  relabelled: items whose label in the extended dataset was another one.
    """

    labels: Codes
    sides: Codes
    without_image: Ints
    without_label: dict[str, int]
    duplicates: int
    two: tuple[tuple[int, int], ...]
    differing: int
    relabelled: int

    @property
    def examples(self) -> int:
        return int((self.labels != NONE).sum())


def join(table: Rows, images: Rows, rule: str = "refuse", before: int = 0) -> Joined:
    """Each image is of another item.  before: so many rows at the end of the table are of the dataset that is extended:
    they speak for an item that no other row speaks for.
    """
    count, old = len(table), len(table) - before
    numbers = numbered(np.concatenate([table.partners, images.partners]), np.concatenate([table.items, images.items]))
    of_row, of_image = numbers[:count], numbers[count:]
    size = int(numbers.max()) + 1 if len(numbers) else 0
    said = np.flatnonzero(table.labels != NONE)
    mine, theirs = said[said < old], said[said >= old]
    chosen = _first(size, of_row, mine)
    least = np.full(size, np.iinfo(np.int32).max, np.int32)
    greatest = np.full(size, NONE, np.int32)
    np.minimum.at(least, of_row[mine], table.labels[mine])
    np.maximum.at(greatest, of_row[mine], table.labels[mine])
    differs = (chosen >= 0) & (least != greatest)
    two = _two(of_row, mine, differs, table.labels) if rule == "refuse" else ()
    left_out = 0
    if rule == "last":
        chosen[of_row[mine]] = mine  # of several assignments the last holds
    elif rule in ("leave-out", "refuse"):
        left_out = int(differs[of_row[mine]].sum())
        chosen[differs] = NONE
    standing = chosen[of_row[theirs]]  # an item has one row in a dataset
    relabelled = int((table.labels[standing] != table.labels[theirs])[standing >= 0].sum())
    chosen[of_row[theirs[standing < 0]]] = theirs[standing < 0]
    speaking = chosen[chosen >= 0]
    row_of_image = chosen[of_image] if len(of_image) else np.zeros(0, np.int64)
    has = row_of_image >= 0
    labels = np.where(has, table.labels[np.maximum(row_of_image, 0)] if count else NONE, NONE).astype(np.int32)
    sides = np.where(has, table.sides[np.maximum(row_of_image, 0)] if count else NONE, NONE).astype(np.int32)
    seen = np.zeros(size, np.bool_)
    seen[of_image] = True
    named = np.zeros(size, np.bool_)
    named[of_row] = True
    without = Counter({EMPTY: count - len(said), TWO: left_out, UNNAMED: int((~named[of_image]).sum())})
    return Joined(
        labels,
        sides,
        np.sort(speaking[~seen[of_row[speaking]]]),
        {name: number for name, number in sorted(without.items()) if number},
        len(said) - left_out - len(speaking),
        two,
        int(differs.sum()),
        relabelled,
    )


def numbered(partners: NDArray[np.int64], items: NDArray[np.uint64]) -> Ints:
    """Equal numbers, from 0 on, for equal partner and item."""
    order = np.lexsort((items, partners))
    new = np.zeros(len(order), np.bool_)
    new[1:] = (partners[order][1:] != partners[order][:-1]) | (items[order][1:] != items[order][:-1])
    found = np.empty(len(order), np.int64)
    found[order] = np.cumsum(new)
    return found


def _first(size: int, of_row: Ints, rows: Ints) -> Ints:
    """By item the first of these rows, NONE where it has none."""
    chosen = np.full(size, NONE, np.int64)
    chosen[of_row[rows[::-1]]] = rows[::-1]
    return chosen


def _two(of_row: Ints, rows: Ints, differs: NDArray[np.bool_], labels: Codes) -> tuple[tuple[int, int], ...]:
    """The first two rows of each such item that say different labels; of many items the first."""
    first: dict[int, int] = {}
    found: dict[int, tuple[int, int]] = {}
    for row in rows[differs[of_row[rows]]].tolist():
        item = int(of_row[row])
        if item not in first:
            first[item] = row
        elif item not in found and labels[first[item]] != labels[row]:
            found[item] = first[item], row
        if len(found) == 10:
            break
    return tuple(found.values())
