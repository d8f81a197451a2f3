"""Which side an example stands on: exact shares of each class, equal pictures together, earlier ones where they were.

Pure, and the same for the same seed: no order of rows, no clock and no other random source has a part in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NONE = -1

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Pictures:
    """Images that are to be split, and earlier ones that are no examples any more but hold their picture's side.

    content, value: 64 bits of the SHA-256 of what was fetched and of what is kept; those with either in common are one
    picture.  labels: class, 0 ... in the order of classes; NONE for one that is no example.
    sides: where it has to stand, as a place among the sides; NONE where that is free.
    fixed: it stood there before: none that is new moves its picture.
    """

    content: Words
    value: Words
    labels: NDArray[np.int32]
    sides: NDArray[np.int32]
    fixed: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Divided:
    """sides: of each picture; ranks: its place in the order that is drawn; moved: examples whose wish was overruled."""

    sides: NDArray[np.int32]
    ranks: Words
    moved: int


def divide(pictures: Pictures, shares: list[int], seed: int, *, by_content: bool = False) -> Divided:
    """shares: of each side, in any unit.  by_content: the side follows from the picture and the seed alone, and shares
    are met about; else each class has its shares exactly, as far as equal pictures allow it.
    """
    groups = grouped(pictures.content, pictures.value)
    count = int(groups.max()) + 1 if len(groups) else 0
    least = np.full(count, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, groups, pictures.content)
    ranks = mixed(least, seed)
    sides = _wished(groups, count, pictures, len(shares))
    if by_content:
        free = sides == NONE
        ends = np.cumsum(np.array(shares, np.float64)) / sum(shares)
        places = np.searchsorted(ends[:-1], ranks[free].astype(np.float64) / 2.0**64, side="right")
        sides[free] = places.astype(np.int32)
    else:
        _by_class(groups, ranks, sides, pictures.labels, shares)
    chosen = sides[groups] if len(groups) else np.zeros(0, np.int32)
    wished = (pictures.sides != NONE) & (pictures.labels != NONE)
    return Divided(
        chosen, mixed(pictures.content ^ pictures.value, seed), int((chosen != pictures.sides)[wished].sum())
    )


def grouped(content: Words, value: Words) -> Ints:
    """Numbers from 0 on; equal for pictures that have one of their words in common, over any chain of such."""
    if not len(content):
        return np.zeros(0, np.int64)
    keys = [np.unique(words, return_inverse=True)[1] for words in (content, value)]
    groups = np.arange(len(content), dtype=np.int64)
    while True:
        before = groups
        for key in keys:
            least = np.full(int(key.max()) + 1, len(groups), np.int64)
            np.minimum.at(least, key, groups)
            groups = least[key]
        if np.array_equal(groups, before):
            return np.asarray(np.unique(groups, return_inverse=True)[1], np.int64)


def mixed(words: Words, seed: int) -> Words:
    """Each word as 64 bits that look like chance, by the seed (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        found = words ^ np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
        found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(found ^ (found >> np.uint64(31)), np.uint64)


def parts(total: int, weights: Ints | list[int], behind: list[int] | None = None) -> Ints:
    """Whole numbers that add up to the total, in the ratio of the weights: the largest remainders are rounded up.

    behind: of equal remainders, those of the places that are most behind come first; else the first places.
    """
    weighed = [int(weight) for weight in weights]
    every = sum(weighed)
    if not every:
        weighed, every = [1] + [0] * (len(weighed) - 1), 1
    found = [total * weight // every for weight in weighed]
    late = behind or [0] * len(weighed)
    left = sorted(range(len(weighed)), key=lambda at: (-(total * weighed[at] % every), -late[at], at))
    for at in left[: total - sum(found)]:
        found[at] += 1
    return np.array(found, np.int64)


def _shared(totals: list[int], shares: list[int]) -> Ints:
    """(classes, sides): what each class should have on each side.  Equal remainders go where most is lacking so far, so
    that many small classes leave no side empty; a single example is trained with.
    """
    behind = [0] * len(shares)
    found = []
    for total in totals:
        of_class = parts(total, shares, behind if total > 1 else None)
        behind = [
            late + total * share - sum(shares) * int(got)
            for late, share, got in zip(behind, shares, of_class, strict=True)
        ]
        found.append(of_class)
    return np.stack(found)


def _wished(groups: Ints, count: int, pictures: Pictures, sides: int) -> NDArray[np.int32]:
    """Of each group the side that its pictures wish: what stood before decides, else most of them, else the first."""
    votes = np.zeros((count, sides), np.int64)
    for rows, weight in ((~pictures.fixed, 1), (pictures.fixed, len(groups) + 1)):
        some = rows & (pictures.sides != NONE)
        np.add.at(votes, (groups[some], pictures.sides[some]), weight)
    found = np.argmax(votes, axis=1).astype(np.int32) if count else np.zeros(0, np.int32)
    found[votes.sum(axis=1) == 0] = NONE
    return found


def _by_class(
    groups: Ints, ranks: Words, sides: NDArray[np.int32], labels: NDArray[np.int32], shares: list[int]
) -> None:
    """Fills in the sides of groups that are free."""
    examples = np.flatnonzero(labels != NONE)
    if not len(examples):
        sides[sides == NONE] = 0
        return
    group_of, label_of = groups[examples], labels[examples]
    classes = int(label_of.max()) + 1
    wanted = _shared(np.bincount(label_of, minlength=classes).tolist(), shares)
    settled = sides[group_of]
    placed = np.zeros_like(wanted)
    np.add.at(placed, (label_of[settled != NONE], settled[settled != NONE]), 1)
    sizes = np.bincount(group_of, minlength=len(sides))
    order = np.argsort(group_of, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)])
    several = np.flatnonzero((sizes > 1) & (sides == NONE))
    for group in several[np.lexsort((ranks[several], -sizes[several]))].tolist():
        mine, numbers = np.unique(label_of[order[starts[group] : starts[group + 1]]], return_counts=True)
        room = (wanted[mine] - placed[mine]).clip(max=numbers[:, None]).sum(axis=0)
        side = int(np.argmax(room))
        sides[group] = side
        placed[mine, side] += numbers
    alone = np.flatnonzero(sides[group_of] == NONE)
    alone = alone[np.lexsort((ranks[group_of[alone]], label_of[alone]))]
    first = 0
    for label, number in enumerate(np.bincount(label_of[alone], minlength=classes).tolist()):
        room = parts(number, (wanted[label] - placed[label]).clip(min=0))
        sides[group_of[alone[first : first + number]]] = np.repeat(np.arange(len(shares), dtype=np.int32), room)
        first += number
    sides[sides == NONE] = 0  # pictures of no example
