"""The one order in which the gradients of a batch's shards are summed: a binary tree over their numbers.

A sum of floats depends on its order.  Here the order is a function of the number of shards alone: a range of shards is
the sum of its two halves, the first of which is not the smaller one.  8 shards are
((0+1)+(2+3))+((4+5)+(6+7)).  So the bits of a sum do not depend on who computes which part of it, nor on what comes
first.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence

import numpy as np
from numpy.typing import NDArray

Arrays = Sequence[NDArray[np.floating]]
"""What is summed: arrays, element by element, each with its own shape and dtype."""


def halves(shards: range) -> tuple[range, range]:
    """The two parts of which a range of at least 2 shards is the sum."""
    middle = (len(shards) + 1) // 2
    return shards[:middle], shards[middle:]


def blocks(shards: int, workers: int) -> tuple[range, ...]:
    """Who computes which shards: a part of the tree for each worker, so that each hands over one sum, in their order.

    The largest part is cut until there are enough; of equal ones the first.  1 <= workers <= shards, else ValueError.
    """
    if not 1 <= workers <= shards:
        raise ValueError(f"{workers} workers for {shards} shards")
    cut = [range(shards)]
    while len(cut) < workers:
        largest = max(range(len(cut)), key=lambda number: len(cut[number]))
        cut[largest : largest + 1] = halves(cut[largest])
    return tuple(cut)


def total(shards: range, value: Callable[[int], Arrays], into: Arrays | None = None) -> Arrays:
    """The sum over these shards, in the arrays that `value` gives for the first of them, or in those of `into`.

    value: the arrays of one shard, called once for each in order; they are given away.  At most 1 + the tree's height
    of them are kept at a time.
    """
    if len(shards) == 1:
        found = value(shards[0])
        for values, place in zip(found, into or (), strict=into is not None):
            place[...] = values
        return found if into is None else into
    left, right = halves(shards)
    first = total(left, value)
    _add(first, total(right, value), first if into is None else into)
    return first if into is None else into


def join(shards: int, parts: MutableMapping[range, Arrays]) -> None:
    """Sums those parts of the tree that are halves of one, in place, as far as there are any.

    parts: the sums so far, by their shards.  With a part for each of `blocks`, in whatever order they came, what
    remains is `parts[range(shards)]`, equal to the bit to `total`.
    """
    _join(range(shards), parts)


def joins(shards: int, workers: int) -> tuple[tuple[int, int], ...]:
    """The additions that `join` makes of the sums of all `blocks`, by their numbers, in order.

    (a, b): to the sum of block a that of block b is added.  In the end block 0 has all.
    """
    found: list[tuple[int, int]] = []

    def join_all(part: range) -> int:
        if part in numbers:
            return numbers[part]
        left, right = (join_all(half) for half in halves(part))
        found.append((left, right))
        return left

    numbers = {block: number for number, block in enumerate(blocks(shards, workers))}
    join_all(range(shards))
    return tuple(found)


def _join(shards: range, parts: MutableMapping[range, Arrays]) -> None:
    if shards in parts or len(shards) < 2:
        return
    left, right = halves(shards)
    _join(left, parts)
    _join(right, parts)
    if left in parts and right in parts:
        first = parts.pop(left)
        _add(first, parts.pop(right), first)
        parts[shards] = first


def _add(first: Arrays, second: Arrays, into: Arrays) -> None:
    for left, right, place in zip(first, second, into, strict=True):
        np.add(left, right, out=place)
