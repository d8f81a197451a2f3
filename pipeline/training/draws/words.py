"""Random words of 32 bits: one after another, and by their number."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Uint32s = NDArray[np.uint32]

_BLOCK = 1 << 14  # words that are made at once
_KEPT = 32  # blocks
_MARK = 64  # blocks between two places from which the stream can go on
_PHILOX = 8  # words that one counter of Philox gives


class Words(Protocol):
    """Words one after another."""

    def take(self, count: int) -> Uint32s:
        """The next words."""

    def place(self) -> Place:
        """Where the stream is."""

    def return_to(self, place: Place) -> None:
        """Goes on from there."""


class Stream(Protocol):
    """Words by their number, the same from any thread and in any order."""

    def words(self, start: int, count: int) -> Uint32s:
        """The words with these numbers, from 0 on."""


@dataclass(frozen=True, slots=True)
class Place:
    """key, at: the state of mt19937 (624 words) and the next of them; of Philox, no key and the next word's number."""

    key: bytes
    at: int


class Mersenne:
    """boost::mt19937, which Caffe draws from: words one after another."""

    def __init__(self, seed: int) -> None:
        _, key, at, *_ = np.random.RandomState(seed & 0xFFFFFFFF).get_state(legacy=True)
        self._bits = np.random.MT19937()
        self.return_to(Place(np.asarray(key, np.uint32).tobytes(), int(at)))

    def take(self, count: int) -> Uint32s:
        return self._bits.random_raw(count).astype(np.uint32)

    def skip(self, count: int) -> None:
        """Leaves out the next words."""
        self._bits.random_raw(count, output=False)

    def place(self) -> Place:
        state = self._bits.state["state"]
        return Place(state["key"].astype(np.uint32).tobytes(), int(state["pos"]))

    def return_to(self, place: Place) -> None:
        key = np.frombuffer(place.key, np.uint32)
        self._bits.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": place.at}}


class MersenneStream:
    """boost::mt19937 by the number of a word.

    A batch that is asked for again, or out of order, finds its words without a start from the seed: the stream keeps
    its last blocks, and a place every million words (2.5 KB each).
    """

    def __init__(self, seed: int) -> None:
        self._lock = threading.Lock()
        self._mersenne, self._next = Mersenne(seed), 0
        self._marks = {0: self._mersenne.place()}
        self._blocks: OrderedDict[int, Uint32s] = OrderedDict()

    def words(self, start: int, count: int) -> Uint32s:
        first, last = start // _BLOCK, max(start, start + count - 1) // _BLOCK
        with self._lock:
            blocks = [self._block(number) for number in range(first, last + 1)]
        whole = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        return whole[start - first * _BLOCK :][:count]

    def _block(self, number: int) -> Uint32s:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        mark = max(place for place in self._marks if place <= number)
        if not mark <= self._next <= number:
            self._mersenne.return_to(self._marks[mark])
            self._next = mark
        while self._next < number:
            self._mersenne.skip(_BLOCK)
            self._step()
        self._blocks[number] = block = self._mersenne.take(_BLOCK)
        self._step()
        if len(self._blocks) > _KEPT:
            self._blocks.popitem(last=False)
        return block

    def _step(self) -> None:
        self._next += 1
        if self._next % _MARK == 0:
            self._marks.setdefault(self._next, self._mersenne.place())


class PhiloxStream:
    """Philox4x64 by the number of a word: the word follows from key and number alone."""

    def __init__(self, key: int) -> None:
        self._key = key

    def words(self, start: int, count: int) -> Uint32s:
        first = start // _PHILOX
        bits = np.random.Philox(key=self._key, counter=first)
        pairs = bits.random_raw((start + count - first * _PHILOX + 1) // 2)
        return pairs.astype("<u8", copy=False).view("<u4")[start - first * _PHILOX :][:count].astype(np.uint32)


class PhiloxWords:
    """Words of such a stream one after another."""

    def __init__(self, stream: PhiloxStream) -> None:
        self._stream, self._at = stream, 0

    def take(self, count: int) -> Uint32s:
        found = self._stream.words(self._at, count)
        self._at += count
        return found

    def place(self) -> Place:
        return Place(b"", self._at)

    def return_to(self, place: Place) -> None:
        self._at = place.at
