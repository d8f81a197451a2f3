"""A JPEG's header, read without decoding (ITU-T T.81, annex B; EXIF 2.3 for the orientation)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_SIZES = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))
_SEQUENTIAL = frozenset((0xC0, 0xC1))  # with all components in its first scan such an image has no other
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))
MAX_SCANS = 500  # an encoder writes about ten; a decoder pays for the whole image at each


class Broken(ValueError):
    """`reason` is a failure's: "truncated" or "decode"."""

    def __init__(self, reason: str, says: str) -> None:
        super().__init__(says)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Header:
    """width, height: as stored, before `orientation` (EXIF: 1 to 8) turns them.  components: 1, 3 or 4."""

    width: int
    height: int
    components: int
    orientation: int

    @property
    def turned(self) -> bool:
        """The orientation swaps width and height."""
        return self.orientation >= 5


def read_header(content: bytes) -> Header:
    """The header of a whole JPEG.

    Raises Broken when the image ends before its end marker, or when it cannot be a JPEG.
    """
    at, orientation, frame, many = 2, 1, None, True
    while True:
        while content[at : at + 1] == b"\xff" and content[at + 1 : at + 2] == b"\xff":
            at += 1
        if at + 4 > len(content):
            raise Broken("truncated", "the JPEG ends within its header")
        if content[at] != 0xFF:
            raise Broken("decode", "the JPEG's header is damaged")
        marker = content[at + 1]
        if marker in _ALONE:
            at += 2
            continue
        length = struct.unpack_from(">H", content, at + 2)[0]
        body = content[at + 4 : at + 2 + length]
        if marker in _SIZES and len(body) >= 6:
            high, wide, components = struct.unpack_from(">HHB", body, 1)
            frame = (wide, high, components)
            many = marker not in _SEQUENTIAL
        elif marker == 0xE1 and body.startswith(b"Exif\0\0") and orientation == 1:
            orientation = _orientation(body[6:])
        elif marker == 0xDA:
            many = many or frame is None or body[:1] != bytes([frame[2]])
            break
        elif marker == 0xD9 or length < 2:
            raise Broken("decode", "the JPEG holds no image")
        at += 2 + length
    if frame is None or 0 in frame:
        raise Broken("decode", "the JPEG gives no size")
    if content.rfind(b"\xff\xd9", at) < 0:
        raise Broken("truncated", "the JPEG ends before its end marker")
    if many and content.count(b"\xff\xda", at) > MAX_SCANS:  # read through: a tenth of decoding
        raise Broken("decode", f"the JPEG has more than {MAX_SCANS} scans")
    return Header(*frame, orientation)


def _orientation(exif: bytes) -> int:
    """Tag 0x0112 of the first directory; 1 when it is absent or wrong."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 10:
        return 1
    at = struct.unpack_from(order + "I", exif, 4)[0]
    if at + 2 > len(exif):
        return 1
    for index in range(struct.unpack_from(order + "H", exif, at)[0]):
        entry = at + 2 + 12 * index
        if entry + 12 > len(exif):
            return 1
        tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, entry)
        if tag == 0x0112:
            return value if kind == 3 and 1 <= value <= 8 else 1
    return 1
