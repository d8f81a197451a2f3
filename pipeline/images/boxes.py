"""Boxes of ISO base media files (AVIF, HEIC, JPEG 2000, JPEG XL), and how large AV1 pictures in them really are.

What an AVIF says of its size (`ispe`) and what its AV1 data hold are two things: a decoder takes memory for the second
and scales it to the first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pipeline.images.broken import Broken, check_pixels, torn

_MOST_ITEMS = 4096
_ROOM = 4
"""AV1 pictures of a file together, in times of what one may have: tiles of a grid, alpha, a gain map, a thumbnail."""

Box = tuple[bytes, int, int]
"""Kind, and where its body begins and ends."""


def boxes(content: bytes, begin: int, end: int) -> Iterator[Box]:
    """Those of one level.  The last one may end behind `end`: then the file is torn."""
    while begin + 8 <= end:
        length, kind = struct.unpack_from(">I4s", content, begin)
        body = begin + 8
        if length == 1 and begin + 16 <= end:
            length = struct.unpack_from(">Q", content, begin + 8)[0]
            body = begin + 16
        elif length == 0:
            length = end - begin
        if length < body - begin:
            return
        yield kind, body, begin + length
        begin += length


def is_torn(content: bytes) -> bool:
    """A box goes on behind the end, or there is none where one begins."""
    last = 0
    for _, _, last in boxes(content, 0, len(content)):
        if last > len(content):
            return True
    return 0 < len(content) - last < 8 or last == 0


def as_avif(content: bytes) -> bytes:
    """With a major brand that its decoder takes: of a sequence where pictures lie in tracks, else of a picture."""
    kinds = {kind for kind, _, _ in boxes(content, 0, len(content))}
    tracks = b"moov" in kinds and (content[8:12] == b"avis" or b"meta" not in kinds)
    return content[:8] + (b"avis" if tracks else b"avif") + content[12:]


def check_av1(content: bytes, max_pixels: int) -> None:
    """Raises Broken when the AV1 data want more memory than the picture may take, or when there are none."""
    sizes: list[tuple[int, int]] = []
    for extents in _coded(content):
        data = b"".join(content[begin:end] for begin, end in extents)
        found = list(_sequences(data))
        if not found:
            raise torn("avif") if any(end > len(content) for _, end in extents) else Broken(
                "decode", "the AVIF holds no AV1 picture where it says so")  # fmt: skip
        sizes += found
    if not sizes:
        raise LookupError("the AVIF holds no AV1 picture")  # torn or not: its caller looks
    for width, height in sizes:
        check_pixels(width, height, max_pixels, "a picture within it has ")
    if sum(width * height for width, height in sizes) > _ROOM * max_pixels:
        raise Broken("too_many_pixels", f"{len(sizes)} pictures within it have more than {_ROOM} x {max_pixels} pixels")


def _coded(content: bytes) -> Iterator[list[tuple[int, int]]]:
    """Where the data of each AV1 item and of each track's first sample lie."""
    for kind, begin, end in boxes(content, 0, len(content)):
        end = min(end, len(content))
        if kind == b"meta":
            yield from _items(content, begin + 4, end)
        elif kind == b"moov":
            yield from _tracks(content, begin, end, 0)


def _tracks(content: bytes, begin: int, end: int, depth: int) -> Iterator[list[tuple[int, int]]]:
    for kind, first, last in boxes(content, begin, end):
        last = min(last, end)
        if kind in (b"trak", b"mdia", b"minf", b"stbl") and depth < 4:
            yield from _tracks(content, first, last, depth + 1)
        elif kind in (b"stco", b"co64") and last - first >= (12 if kind == b"stco" else 16):
            (at,) = struct.unpack_from(">I" if kind == b"stco" else ">Q", content, first + 8)
            yield [(at, len(content))]


def _items(content: bytes, begin: int, end: int) -> Iterator[list[tuple[int, int]]]:
    wanted: set[int] = set()
    places: dict[int, tuple[int, list[tuple[int, int]]]] = {}
    inner = 0
    for kind, first, last in boxes(content, begin, end):
        last = min(last, end)
        if kind == b"iinf":
            wanted |= _av1_items(content, first, last)
        elif kind == b"iloc":
            places.update(_places(content, first, last))
        elif kind == b"idat":
            inner = first
    for number in sorted(wanted & set(places)):
        method, extents = places[number]
        base = inner if method == 1 else 0
        # An extent without a length goes to the end.
        yield [(base + at, base + at + size if size else len(content)) for at, size in extents]


def _av1_items(content: bytes, begin: int, end: int) -> set[int]:
    found: set[int] = set()
    if end - begin < 6:
        return found
    begin += 6 if content[begin] == 0 else 8
    for kind, first, last in boxes(content, begin, end):
        if kind == b"infe" and last <= end and last - first >= 12 and content[first] >= 2:
            wide = content[first] >= 3
            number = int.from_bytes(content[first + 4 : first + (8 if wide else 6)], "big")
            name = first + (10 if wide else 8)
            if content[name : name + 4] == b"av01":
                found.add(number)
        if len(found) > _MOST_ITEMS:
            raise Broken("decode", f"the AVIF has more than {_MOST_ITEMS} items")
    return found


def _places(content: bytes, begin: int, end: int) -> Iterator[tuple[int, tuple[int, list[tuple[int, int]]]]]:
    """Of each item: 0 for places in the file, 1 for places in `idat`; and its extents."""
    body = _Numbers(content[begin:end])
    version = body.take(1)
    body.take(3)
    sizes = body.take(2)
    at_bytes, length_bytes, base_bytes = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_bytes = sizes & 15 if version in (1, 2) else 0
    for _ in range(min(body.take(4 if version == 2 else 2), 65536)):
        if body.empty:
            return
        number = body.take(4 if version == 2 else 2)
        method = body.take(2) & 15 if version in (1, 2) else 0
        body.take(2)
        base = body.take(base_bytes)
        extents = []
        for _ in range(body.take(2)):
            if body.empty:
                break
            body.take(index_bytes)
            at = body.take(at_bytes)
            extents.append((base + at, body.take(length_bytes)))
        yield number, (method, extents)


class _Numbers:
    """Big-endian numbers, one after the other; zeros behind the end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def empty(self) -> bool:
        return self._at >= len(self._data)

    def take(self, size: int) -> int:
        self._at += size
        return int.from_bytes(self._data[self._at - size : self._at], "big")


def _sequences(data: bytes) -> Iterator[tuple[int, int]]:
    """Width and height of each sequence header among AV1's units (AV1 specification, 5.3 to 5.5)."""
    at = 0
    while at < len(data):
        head = data[at]
        at += 1 + (head >> 2 & 1)
        size = len(data) - at
        if head & 2:
            size = shift = 0
            while at < len(data) and shift < 56:
                size |= (data[at] & 0x7F) << shift
                at, shift = at + 1, shift + 7
                if not data[at - 1] & 0x80:
                    break
        if head >> 3 & 15 == 1:
            yield _sequence_size(data[at : at + min(size, 512)])
        at += size


def _sequence_size(body: bytes) -> tuple[int, int]:
    bits = _Bits(body)
    bits.take(4)  # profile, still picture
    if bits.take(1):  # reduced: a still picture's
        bits.take(5)
    else:
        models = 0
        if bits.take(1):  # timing
            bits.take(64)
            if bits.take(1):
                bits.skip_uvlc()
            models = bits.take(1)
            delay = bits.take(5) + 1 if models else 0
            if models:
                bits.take(42)  # units in a decoding tick, lengths of two times
        initial = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if models and bits.take(1):
                bits.take(2 * delay + 1)
            if initial and bits.take(1):
                bits.take(4)
    wide, high = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(wide) + 1, bits.take(high) + 1


class _Bits:
    """Bits from the highest on; zeros behind the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, number: int) -> int:
        self._left -= number
        found = self._value >> self._left if self._left >= 0 else 0
        return found & ((1 << number) - 1)

    def skip_uvlc(self) -> None:
        zeros = 0
        while zeros < 32 and self._left > 0 and not self.take(1):
            zeros += 1
        if zeros < 32:
            self.take(zeros)
