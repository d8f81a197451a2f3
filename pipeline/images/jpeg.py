"""JPEG bytes -> pixels by libjpeg-turbo, which says what was wrong with them (ITU-T T.81, annex B, for the markers).

The size is what libjpeg reads: the library that decodes.  What is read here beside it is what libjpeg passes over
(EXIF, XMP) and where its header ends.  Markers are found as libjpeg finds them (jdmarker.c): whatever lies between two
segments is passed over.
"""

from __future__ import annotations

import io
import struct
import threading
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from pipeline.images.broken import Broken, check_pixels, torn
from pipeline.images.orientation import orientation

Pixels = NDArray[np.uint8]

MAX_SCANS = 500
"""An encoder writes about ten."""
MOST_VISITS = 2_000_000_000
"""Pixels times scans: a decoder pays for the whole image at each scan, however few bytes that has; about 2 s of it."""
_SIZES = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))
_SEQUENTIAL = frozenset((0xC0, 0xC1, 0xC9))  # with all components in its first scan such an image has no other
_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))
_TABLES = frozenset((0xC4, 0xCC, 0xDB, 0xDD))
_MOST_SEGMENTS = 20_000
"""Of a header; EXIF and profiles come in pieces of 64 KB."""
_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_END = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the first scan.  width, height: as stored, before `orientation` (1 to 8) turns them."""

    width: int
    height: int
    colours: str
    """libjpeg's name of their space; "" where its interface has none for how they are sampled."""
    orientation: int
    many: bool
    """It may have several scans."""
    scans_at: int
    """Where the parameters of the first scan end."""
    tidy: bytes
    """The tables and the frame up to there, without anything that libjpeg would warn of."""

    @property
    def turned(self) -> bool:
        """The orientation swaps width and height."""
        return self.orientation >= 5


def read_header(content: bytes, max_pixels: int) -> Header:
    """Raises Broken when the header ends too early, is none, or wants more pixels or work than is allowed."""
    walk = _Walk()
    scans_at = walk.through(content)
    if walk.frame is None or 0 in walk.frame:
        raise Broken("decode", "the JPEG gives no size")
    width, height, components = walk.frame
    try:
        high, wide, colours, _ = simplejpeg.decode_jpeg_header(content, strict=False)
    except (ValueError, KeyError):  # an odd sampling, or what decoding will refuse
        high, wide, colours = height, width, ""
    if (wide, high) != (width, height):
        raise Broken("decode", "the JPEG gives two sizes")
    check_pixels(width, height, max_pixels)
    many = walk.many or walk.marker not in _SEQUENTIAL or walk.in_scan != components
    scans = content.count(b"\xff\xda", scans_at) + 1 if many else 1
    if scans > MAX_SCANS:
        raise Broken("decode", f"the JPEG has more than {MAX_SCANS} scans")
    if scans * width * height > MOST_VISITS:
        raise Broken("too_many_pixels", f"{width} x {height} pixels in {scans} scans: too much work")
    turn = orientation(walk.exif, walk.xmp) if walk.exif or walk.xmp else 1
    return Header(width, height, colours, turn, many, scans_at, walk.tidy(content, scans_at))


class _Walk:
    """From segment to segment."""

    def __init__(self) -> None:
        self.frame: tuple[int, int, int] | None = None
        self.marker = 0
        """Of the frame."""
        self.many = False
        self.in_scan = 0
        """Components of the first scan."""
        self.exif = self.xmp = b""
        self._kept: list[tuple[int, int]] = []
        self._jfif = False
        self._adobe: int | None = None

    def through(self, content: bytes) -> int:
        """Where the first scan's parameters end.  Raises Broken."""
        at = 2
        for _ in range(_MOST_SEGMENTS):
            at = content.find(b"\xff", at)
            while at >= 0 and content[at + 1 : at + 2] == b"\xff":
                at += 1
            if at < 0 or at + 4 > len(content):
                raise torn("JPEG")
            marker = content[at + 1]
            if marker in _ALONE:
                at += 2
                continue
            if marker == 0xD9:
                raise Broken("decode", "the JPEG holds no image")
            end = at + 2 + max(2, int.from_bytes(content[at + 2 : at + 4], "big"))
            if end > len(content):
                raise torn("JPEG")
            self._segment(marker, content[at + 4 : end], at, end)
            at = end
            if marker == 0xDA:
                return end
        raise Broken("decode", f"the JPEG's header has more than {_MOST_SEGMENTS} segments")

    def _segment(self, marker: int, body: bytes, at: int, end: int) -> None:
        if marker in _SIZES and len(body) >= 6 and self.frame is None:
            high, wide, components = struct.unpack_from(">HHB", body, 1)
            self.frame, self.marker = (wide, high, components), marker
            self._kept.append((at, end))
        elif marker in _TABLES or marker in _SIZES:  # a second frame: libjpeg refuses it, and shall
            self._kept.append((at, end))
        elif marker == 0xDA:
            self.in_scan = body[0] if body else 0
        elif marker == 0xE1 and body.startswith(_EXIF):
            self.exif += body[len(_EXIF) :] if self.exif else body  # in several segments it is one block, in pieces
        elif marker == 0xE1 and body.startswith(_XMP):
            self.xmp = body[len(_XMP) :]
        elif marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14:
            self._jfif = True
        elif marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            self._adobe = body[11]

    def tidy(self, content: bytes, scans_at: int) -> bytes:
        parts = [b"\xff\xd8", _JFIF if self._jfif else b""]
        if self._adobe is not None:
            known = self._adobe if self._adobe in (0, 1, 2) else 2 if self.frame and self.frame[2] == 4 else 1
            parts.append(_ADOBE + bytes([known]))
        parts += [content[at:end] for at, end in self._kept]
        size = 2 + 2 + 1 + 2 * self.in_scan
        start = content.rfind(b"\xff\xda", 0, scans_at)
        if self.marker in _SEQUENTIAL and scans_at - start == size + 3:
            parts += [content[start : start + size], b"\0\x3f\0"]  # many write others, which mean nothing here
        else:
            parts.append(content[start:scans_at])
        return b"".join(parts)


class Room:
    """Memory for pixels that are used up before the same thread decodes its next picture.

    Fresh memory costs a page fault for each 4 KiB of it, which is a good part of what a small picture takes.
    """

    LARGEST = 16 * 2**20

    def __init__(self) -> None:
        self._mine = threading.local()

    def take(self, size: int) -> Pixels:
        """So many bytes; what is larger than LARGEST is not kept."""
        if size > self.LARGEST:
            return _memory(size)
        held: Pixels | None = getattr(self._mine, "held", None)
        if held is None or len(held) < size:
            held = self._mine.held = _memory(size)
        return held[:size]


def _memory(size: int) -> Pixels:
    """So many bytes from an odd address on.

    Where a row begins at a multiple of 32 bytes, libjpeg-turbo writes it past the processor's caches
    (jdcolext-avx2.asm), and whoever resizes the pixels waits for them: half as long again.
    """
    memory = np.empty(size + 1, np.uint8)
    odd = 1 - memory.ctypes.data % 2
    return memory[odd : odd + size]


def decode(
    content: bytes, header: Header, factor: int, room: Room | None = None, *, grey: bool = False
) -> tuple[Pixels, str]:
    """(height, width, 3) BGR at 1/factor of its size, as stored, and what the decoder says of damage ("": nothing).

    room: where the pixels may lie.  grey: the brightness as the file has it, three times.
    A JPEG that lacks nothing but its end marker is whole; one that has it may be torn within, and is decoded as far as
    it goes.  Raises Broken.
    """
    said = ""
    if header.colours:
        try:
            return _pixels(content, header, factor, strict=True, room=room, grey=grey), ""
        except ValueError as error:
            said = str(error)  # looked into below, and decoded again: few are
    ended = content.find(_END, header.scans_at) >= 0
    if not ended and (header.many or content.endswith(b"\xff")):  # cut within its end marker, or between two scans
        raise torn("JPEG")
    tidy = header.tidy + content[header.scans_at :] + (b"" if ended else _END)
    if not header.colours:
        return _by_pillow(tidy, header), "" if ended else NO_END
    if not ended or _of_header(content, said):
        try:
            return _pixels(tidy, header, factor, strict=True, grey=grey), "" if ended else NO_END
        except ValueError as error:
            if not ended:
                raise torn("JPEG") from error
            said = str(error)
    try:
        return _pixels(tidy, header, factor, strict=False, grey=grey), said
    except ValueError as error:
        raise Broken("decode", f"the jpeg decoder refused it: {error}") from error


NO_END = "the JPEG has no end marker"


def _of_header(content: bytes, said: str) -> bool:
    """What libjpeg spoke of stands before the pixels: of these it has said nothing yet."""
    try:
        simplejpeg.decode_jpeg_header(content, strict=True)
    except ValueError:
        return True
    return said.startswith("Invalid SOS parameters")


def _pixels(
    content: bytes, header: Header, factor: int, *, strict: bool, room: Room | None = None, grey: bool = False
) -> Pixels:
    high, wide = -(-header.height // factor), -(-header.width // factor)
    inks = header.colours in ("CMYK", "YCCK")
    grey = grey and not inks
    size = high * wide * (1 if grey else 3)
    found = simplejpeg.decode_jpeg(
        content,
        "CMYK" if inks else "GRAY" if grey else "BGR",
        min_height=high,
        min_width=wide,
        min_factor=1,
        buffer=None if inks else room.take(size) if room else _memory(size),
        strict=strict,
    )
    if found.shape[:2] != (high, wide):
        raise Broken("decode", "the JPEG has another size than its header says")
    if grey:
        return np.asarray(cv2.cvtColor(found, cv2.COLOR_GRAY2BGR), np.uint8)
    return _from_inks(found) if inks else found


def _from_inks(inks: NDArray[np.uint8]) -> Pixels:
    """Of CMYK as Adobe stores it: inverted."""
    high, wide = inks.shape[:2]
    image = Image.frombuffer("CMYK", (wide, high), inks, "raw", "CMYK;I", 0, 1)
    return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])


def _by_pillow(content: bytes, header: Header) -> Pixels:
    """Of samplings that libjpeg knows and its simple interface does not."""
    with Image.open(io.BytesIO(content), formats=["JPEG"]) as opened:
        if opened.size != (header.width, header.height):
            raise Broken("decode", "the JPEG gives two sizes")
        opened.load()
        return np.ascontiguousarray(np.asarray(opened.convert("RGB"))[:, :, ::-1])
