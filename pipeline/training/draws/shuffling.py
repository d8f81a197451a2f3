"""Orders of examples: as Caffe's layers shuffle them, and by a stream of ours."""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.training.draws.words import Mersenne, PhiloxStream, Place

Order = NDArray[np.int64]

_AT_ONCE = 1 << 16  # words, and as many numbers if none of them is drawn again
_KEPT = 4  # orders near the one that was asked for, and the places from which the next ones follow


class Orders(Protocol):
    """The order of the examples in each turn through a list."""

    def order(self, turn: int) -> Order:
        """The numbers of the examples in this turn (from 0 on).  From any thread, in any order."""


class CaffesOrders:
    """ImageData's: each turn shuffles what the turn before has left, with a mt19937 of the layer's own."""

    def __init__(self, seed: int, count: int) -> None:
        self._seed, self._count, self._lock = seed, count, threading.Lock()
        self._kept: dict[int, tuple[Order, Place]] = {}

    def order(self, turn: int) -> Order:
        with self._lock:
            if turn not in self._kept:
                self._make(turn)
            return self._kept[turn][0]

    def _make(self, turn: int) -> None:
        words = Mersenne(self._seed)
        begin = max((made for made in self._kept if made < turn), default=-1)
        order = list(range(self._count))
        if begin >= 0:
            before, place = self._kept[begin]
            order = before.tolist()
            words.return_to(place)
        for number in range(begin + 1, turn + 1):
            for at, other in zip(range(self._count - 1, 0, -1), uniform_ints(words, self._count), strict=True):
                order[at], order[other] = order[other], order[at]
            if number > turn - _KEPT:  # what a resumed run only passes by is not kept
                self._kept[number] = np.array(order, np.int64), words.place()
        for old in sorted(self._kept, key=lambda made: abs(made - turn))[_KEPT:]:
            del self._kept[old]


def uniform_ints(words: Mersenne, count: int) -> list[int]:
    """For each i from count - 1 down to 1, a number in [0, i] (boost::uniform_int): its word, cut into i + 1 buckets.

    The list begins with the one of count - 1.
    """
    tops = np.arange(count - 1, 0, -1, dtype=np.uint64)
    buckets = np.uint64(2**32) // (tops + np.uint64(1))
    found: list[int] = []
    while len(found) < tops.size:
        place, piece = words.place(), slice(len(found), len(found) + _AT_ONCE)
        block = words.take(tops[piece].size).astype(np.uint64) // buckets[piece]
        beyond = np.flatnonzero(block > tops[piece])
        if beyond.size:  # in no bucket: the next word takes its turn, so those behind it belong to others
            good = int(beyond[0])
            words.return_to(place)
            words.take(good + 1)
            block = block[:good]
        found += block.tolist()
    return found


class OurOrders:
    """An order that follows from seed and turn alone: the examples sorted by a word each."""

    def __init__(self, key: int, count: int) -> None:
        self._stream, self._count = PhiloxStream(key), count

    def order(self, turn: int) -> Order:
        words = self._stream.words(turn * self._count * 2, self._count * 2)
        return np.argsort(words.view(np.uint64), kind="stable").astype(np.int64)


class Shuffler(Protocol):
    """HDF5Data's: it shuffles lists one after another."""

    def shuffle(self, values: list[int]) -> None:
        """In place."""

    def copy(self) -> Shuffler:
        """One that goes on by itself from here."""


class CShuffler:
    """std::random_shuffle over the C library's rand(), which begins at 1 in each process: random_seed says nothing."""

    def __init__(self) -> None:
        state = [1]
        for _ in range(30):
            state.append(state[-1] * 16807 % 2147483647)
        self._state = [*state, *state[:3]]
        for _ in range(310):  # glibc throws the first ones away
            self._next()

    def _next(self) -> int:
        state = self._state
        state.append((state[-31] + state[-3]) & 0xFFFFFFFF)
        if len(state) > 4096:
            del state[:-31]
        return state[-1] >> 1

    def shuffle(self, values: list[int]) -> None:
        for at in range(1, len(values)):
            other = self._next() % (at + 1)
            values[at], values[other] = values[other], values[at]

    def copy(self) -> CShuffler:
        twin = CShuffler.__new__(CShuffler)
        twin._state = list(self._state)
        return twin


class OurShuffler:
    """The same over a stream of ours."""

    def __init__(self, key: int, at: int = 0) -> None:
        self._key, self._at = key, at

    def shuffle(self, values: list[int]) -> None:
        words = PhiloxStream(self._key).words(self._at, 2 * len(values))
        self._at += 2 * len(values)
        values[:] = [values[at] for at in np.argsort(words.view(np.uint64), kind="stable").tolist()]

    def copy(self) -> OurShuffler:
        return OurShuffler(self._key, self._at)
