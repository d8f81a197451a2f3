"""Damaged inputs from good ones: seeded, so that a number and a target's name give the same inputs again."""

from __future__ import annotations

import random
from collections.abc import Sequence

LARGEST = 128 * 1024
"""Bytes of an input."""
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**53, 2**63 - 1, 2**64 - 1)


class Mutator:
    """Takes an input out of a pool and damages it one to six times."""

    def __init__(self, seed: str, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
        """pool: at least one input.  words: what the format is made of."""
        self._random = random.Random(seed)
        self.pool = list(pool)
        self._words = [*words, b"", b"\0", b"\xff", b"\n", b"-1", b"9" * 25, b"\xed\xa0\x80", b"\x1b[2J"]
        self._ways = (self._flip, self._flip, self._byte, self._cut, self._drop, self._double, self._word, self._word,
                      self._splice, self._number, self._varint, self._digits)  # fmt: skip

    def next(self) -> bytes:
        data = bytearray(self._random.choice(self.pool))
        for _ in range(self._random.choice((1, 1, 1, 2, 2, 3, 4, 6))):
            data = self._random.choice(self._ways)(data)
        return bytes(data[:LARGEST])

    def _at(self, data: bytearray) -> int:
        """A place; the beginning and the end, where formats keep what matters, more often than others."""
        if not data:
            return 0
        where = self._random.random()
        if where < 0.2:
            return self._random.randrange(min(len(data), 64))
        if where < 0.4:
            return len(data) - 1 - self._random.randrange(min(len(data), 256))
        return self._random.randrange(len(data))

    def _flip(self, data: bytearray) -> bytearray:
        if data:
            data[self._at(data)] ^= 1 << self._random.randrange(8)
        return data

    def _byte(self, data: bytearray) -> bytearray:
        if data:
            data[self._at(data)] = self._random.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, self._random.randrange(256)))
        return data

    def _cut(self, data: bytearray) -> bytearray:
        at = self._at(data)
        return data[:at] if self._random.random() < 0.7 else data[at:]

    def _drop(self, data: bytearray) -> bytearray:
        at = self._at(data)
        del data[at : at + self._random.choice((1, 2, 4, 8, 64))]
        return data

    def _double(self, data: bytearray) -> bytearray:
        at = self._at(data)
        piece = data[at : at + self._random.choice((1, 4, 16, 256))]
        data[at:at] = piece * self._random.choice((1, 2, 2, 50, 1000))
        return data[:LARGEST]

    def _word(self, data: bytearray) -> bytearray:
        at, word = self._at(data), self._random.choice(self._words)
        data[at : at + (len(word) if self._random.random() < 0.5 else 0)] = word
        return data

    def _splice(self, data: bytearray) -> bytearray:
        other = self._random.choice(self.pool)
        here, there = self._at(data), self._random.randrange(len(other) + 1)
        return data[:here] + other[there:]

    def _number(self, data: bytearray) -> bytearray:
        """A fixed-width number, a length perhaps, becomes one at the edge of what fits, or near what it was."""
        width = self._random.choice((1, 2, 4, 8))
        order = self._random.choice(("little", "big"))
        at = self._at(data)
        old = int.from_bytes(data[at : at + width], order)  # type: ignore[arg-type]
        new = self._random.choice((*_EDGES, old + 1, old - 1, old * 2, old + 1000))
        data[at : at + width] = (new % (1 << 8 * width)).to_bytes(width, order)  # type: ignore[arg-type]
        return data

    def _varint(self, data: bytearray) -> bytearray:
        """A length as protobuf and Thrift write it."""
        value, out = self._random.choice(_EDGES), bytearray()
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        at = self._at(data)
        data[at : at + 1] = [*out, value]
        return data

    def _digits(self, data: bytearray) -> bytearray:
        """A number in text becomes another one."""
        begin = self._at(data)
        while begin < len(data) and not 0x30 <= data[begin] <= 0x39:
            begin += 1
        end = begin
        while end < len(data) and 0x30 <= data[end] <= 0x39:
            end += 1
        new = self._random.choice((b"0", b"-1", b"1e309", b"1e9", b"2147483648", b"18446744073709551616", b"9" * 5000))
        data[begin:end] = new
        return data
