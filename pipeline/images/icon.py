"""An icon's largest picture, as a file of its own: what is decoded is what was looked at."""

from __future__ import annotations

import struct

from pipeline.images.broken import Broken, check_pixels, torn

_PNG = b"\x89PNG\r\n\x1a\n"


def largest(content: bytes, max_pixels: int) -> tuple[str, bytes]:
    """ "png" and a PNG, or "ico" and an icon of that picture alone.  Raises Broken."""
    (count,) = struct.unpack_from("<H", content, 4)
    if 6 + 16 * count > len(content):
        raise torn("ico")
    best: tuple[tuple[int, int], bytes, int, int] | None = None
    for at in range(6, 6 + 16 * count, 16):
        head = content[at : at + 8]
        size, place = struct.unpack_from("<II", content, at + 8)
        bits = struct.unpack_from("<H", head, 6)[0]
        # As Pillow chooses: the largest, of equal ones that of the fewest colours.
        rank = ((head[0] or 256) * (head[1] or 256), -(bits or (head[2] and (head[2] - 1).bit_length()) or 256))
        if best is None or rank > best[0]:
            best = (rank, head, size, place)
    if best is None:
        raise Broken("decode", "the icon holds no picture")
    _, head, size, place = best
    if content.startswith(_PNG, place):
        return "png", content[place:]  # it says itself where it ends
    body = content[place : place + size]
    if len(body) < size:
        raise torn("ico")
    if len(body) < 16:
        raise Broken("decode", "the icon holds no picture")
    header, width, height = struct.unpack_from("<Iii", body)
    if header == 12:
        width, height = struct.unpack_from("<HH", body, 4)
    check_pixels(abs(width), abs(height) // 2, max_pixels)
    shape = bytes([min(abs(width), 256) % 256, min(abs(height) // 2, 256) % 256])
    return "ico", b"\0\0\1\0\1\0" + shape + head[2:] + struct.pack("<II", size, 22) + body
