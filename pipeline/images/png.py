"""A PNG's chunks, walked without decoding (W3C PNG, third edition, section 5)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pipeline.images.jpeg import Broken


@dataclass(frozen=True, slots=True)
class Header:
    """see_through: it has an alpha channel or a transparent colour.  oriented: it has EXIF, maybe an orientation."""

    width: int
    height: int
    see_through: bool
    oriented: bool


def read_header(content: bytes) -> Header:
    """Raises Broken when a chunk is cut off or the end chunk is absent."""
    if len(content) < 33 or content[12:16] != b"IHDR":
        raise Broken("truncated" if len(content) < 33 else "decode", "the PNG ends within its header")
    width, height, _, colour = struct.unpack_from(">IIBB", content, 16)
    kinds = set()
    at = 8
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        kinds.add(kind)
        at += 12 + length
        if kind == b"IEND":
            break
    if b"IEND" not in kinds or at > len(content):
        raise Broken("truncated", "the PNG ends before its end chunk")
    if not width or not height:
        raise Broken("decode", "the PNG gives no size")
    return Header(width, height, colour in (4, 6) or b"tRNS" in kinds, b"eXIf" in kinds)
