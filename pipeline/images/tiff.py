"""The first directory of a TIFF, as far as it says where pixels lie (TIFF 6.0, section 2; BigTIFF)."""

from __future__ import annotations

import struct

from pipeline.images.broken import check_pixels

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_FORMS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
_CODING, _FAX = 259, (2, 3, 4, 32771)
_WIDTH, _HEIGHT, _STRIPS, _STRIP_BYTES = 256, 257, 273, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_WANTED = frozenset((_CODING, _WIDTH, _HEIGHT, _STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES))
_MOST_VALUES = 2**20


class _Cut(Exception):
    """The directory, or what it names, goes on behind the end."""


def is_torn_unseen(content: bytes) -> bool:
    """It is torn, and its coding is one whose decoder fills what is missing with white or black and says nothing.

    Of other codings the decoder is asked: many files give wrong lengths for strips that are all there.
    """
    try:
        coding = _tags(content).get(_CODING, (1,))[0]
    except _Cut:
        return False
    return coding in _FAX and is_torn(content)


def is_torn(content: bytes) -> bool:
    """Its directory or its pixels go on behind the end."""
    try:
        tags = _tags(content)
    except _Cut:
        return True
    for places, lengths in ((_STRIPS, _STRIP_BYTES), (_TILES, _TILE_BYTES)):
        ends = zip(tags.get(places, ()), tags.get(lengths, ()), strict=False)
        if any(at + size > len(content) for at, size in ends):
            return True
    return False


def check_tiles(content: bytes, max_pixels: int) -> None:
    """Raises Broken when a tile is larger than a picture may be: libtiff takes its memory whole."""
    try:
        tags = _tags(content)
    except _Cut:
        return  # the decoder will say so
    width, height = (max(tags.get(tag, (0,)), default=0) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
    check_pixels(width, height, max_pixels, "a tile has ")


def _tags(content: bytes) -> dict[int, tuple[int, ...]]:
    """The tags that are wanted here.  Raises _Cut."""
    order = "<" if content.startswith(b"II") else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    count, entry, inline = ("Q", "HHQ8s", 8) if big else ("H", "HHI4s", 4)
    (at,) = _read(order + ("Q" if big else "I"), content, 8 if big else 4)
    (number,) = _read(order + count, content, at)
    at += struct.calcsize(order + count)
    size = struct.calcsize(order + entry)
    if at + number * size > len(content):
        raise _Cut
    found: dict[int, tuple[int, ...]] = {}
    for place in range(at, at + number * size, size):
        tag, kind, values, cell = struct.unpack_from(order + entry, content, place)
        length = values * _SIZES.get(kind, 0)
        where = place + size - inline
        if length > inline:
            (where,) = struct.unpack(order + ("Q" if big else "I"), cell)
            if where + length > len(content):
                raise _Cut
        if tag in _WANTED and kind in _FORMS and tag not in found:
            found[tag] = _read(f"{order}{min(values, _MOST_VALUES)}{_FORMS[kind]}", content, where)
    return found


def _read(form: str, content: bytes, at: int) -> tuple[int, ...]:
    if at + struct.calcsize(form) > len(content):
        raise _Cut
    return struct.unpack_from(form, content, at)
