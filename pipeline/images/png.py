"""PNG bytes -> pixels: chunks and rows are looked at here, libpng gets what is left (W3C PNG, third edition, 5 to 11).

What OpenCV's libpng cannot do without a line on stderr is found before it: it sees the picture's own chunks only,
checked, with rows that are already inflated.  So a bomb beside the pixels or behind them is never inflated.
"""

from __future__ import annotations

import binascii
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from pipeline.images.broken import Broken, check_pixels
from pipeline.images.orientation import orientation

Pixels = NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))
"""Of each pass: first column, step, first row, step."""
_MOST_CHUNKS = 100_000
_LONGEST = 1_000_000
"""Of a side; libpng refuses longer ones."""
_MOST_TEXT = 2**20
"""Bytes of a text, inflated; as much as Pillow reads."""
_BLOCK = 65535
"""Bytes of a stored block of deflate, at the most."""
_STORED = 64 * 2**20
"""Rows of more bytes are inflated twice rather than held."""


@dataclass(frozen=True, slots=True)
class Header:
    """A whole PNG's chunks.  width, height: as stored, before `orientation` (1 to 8) turns them."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool
    palette: bytes
    transparent: bytes
    """Its tRNS chunk, where that fits the kind of colour."""
    data: tuple[tuple[int, int], ...]
    """Where the compressed rows lie."""
    orientation: int

    @property
    def passes(self) -> list[tuple[int, int]]:
        """Bytes of a row with its filter, and rows, of each pass."""
        bits = self.depth * _CHANNELS[self.colour]
        if not self.interlaced:
            return [(1 + (self.width * bits + 7) // 8, self.height)]
        sizes = [
            (len(range(left, self.width, across)), len(range(top, self.height, down)))
            for left, across, top, down in _ADAM7
        ]
        return [(1 + (wide * bits + 7) // 8, high) for wide, high in sizes if wide and high]


def read_header(content: bytes, max_pixels: int) -> Header:
    """Raises Broken when a chunk is cut off, the end chunk is absent, or it is no PNG that can be read."""
    if len(content) < 33:
        raise Broken("truncated", "the PNG ends within its header")
    length, kind = struct.unpack_from(">I4s", content, 8)
    if kind != b"IHDR" or length != 13:
        raise Broken("decode", "the PNG's first chunk is not its header")
    width, height, depth, colour, *ways, interlace = struct.unpack_from(">IIBBBBB", content, 16)
    if not width or not height:
        raise Broken("decode", "the PNG gives no size")
    check_pixels(width, height, max_pixels)
    if depth not in _DEPTHS.get(colour, ()) or any(ways) or interlace > 1 or max(width, height) > _LONGEST:
        raise Broken("decode", "the PNG's header names no kind of PNG")
    kept: dict[bytes, bytes] = {}
    texts: dict[bytes, bytes] = {}
    data: list[tuple[int, int]] = []
    for kind, at, end in _chunks(content):
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT"):
            if binascii.crc32(content[at - 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
                raise Broken("decode", f"the PNG's chunk {kind.decode()} is damaged")
            if kind == b"IDAT":
                data.append((at, end))
            else:
                kept.setdefault(kind, content[at:end])
        elif kind == b"eXIf":
            texts[kind] = content[at:end]
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            _keep_text(kind, content[at:end], texts)
    palette = kept.get(b"PLTE", b"")
    if colour == 3 and (not palette or len(palette) % 3):
        raise Broken("decode", "the PNG has no palette")
    transparent = kept.get(b"tRNS", b"")
    fits = {0: len(transparent) == 2, 2: len(transparent) == 6, 3: 0 < len(transparent) <= len(palette) // 3}
    exif = texts.get(b"eXIf") or _from_hex(texts.get(b"Raw profile type exif", b""))
    xmp = texts.get(b"XML:com.adobe.xmp", b"")
    turn = orientation(exif, xmp) if exif or xmp else 1
    return Header(width, height, depth, colour, interlace == 1, palette[: 3 << depth] if colour == 3 else b"",
                  transparent if fits.get(colour) else b"", tuple(data), turn)  # fmt: skip


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and where its bytes begin and end.  Raises Broken where the end chunk is missing."""
    at = 8
    for _ in range(_MOST_CHUNKS):
        if at + 12 > len(content):
            raise Broken("truncated", "the PNG ends before its end chunk")
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 8 + length
        if end + 4 > len(content):
            raise Broken("truncated", "the PNG ends before its end chunk")
        if kind == b"IEND":
            return
        yield kind, at + 8, end
        at = end + 4
    raise Broken("decode", f"the PNG has more than {_MOST_CHUNKS} chunks")


def _keep_text(kind: bytes, body: bytes, texts: dict[bytes, bytes]) -> None:
    """EXIF and XMP as some programs write them, before there were chunks for it."""
    key, _, value = body.partition(b"\0")
    if key not in (b"Raw profile type exif", b"XML:com.adobe.xmp"):
        return
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = value[:1] == b"\1"
        value = b"\0" + value[2:].split(b"\0", 2)[-1] if value[2:].count(b"\0") >= 2 else b"\0"
    if packed or kind == b"iTXt":
        value = value[1:]
    if packed:
        try:
            value = zlib.decompressobj().decompress(value, _MOST_TEXT)
        except zlib.error:
            return
    texts[key] = value


def _from_hex(profile: bytes) -> bytes:
    """ImageMagick's way: a name, a length, and hex in lines."""
    try:
        return bytes.fromhex(b"".join(profile.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""


def decode(content: bytes, header: Header, *, grey: bool = False) -> Pixels:
    """(height, width, 3) BGR, as stored, over white.  grey: its brightness, three times.  Raises Broken."""
    plain = header.colour in (0, 2, 3) and not header.transparent
    how = cv2.IMREAD_UNCHANGED if not plain else cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    image = cv2.imdecode(_bare(content, header), how)
    if image is None or image.shape[:2] != (header.height, header.width):
        raise Broken("decode", "the png decoder refused it")
    if plain:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image, np.uint8)
    if header.colour == 0:
        return _grey_over_white(image, header)
    return over_white(image)


def _bare(content: bytes, header: Header) -> NDArray[np.uint8]:
    """The same picture with nothing but itself: header, whole palette, transparency, rows."""
    parts = [_SIGNATURE, content[8:33]]
    if header.colour == 3:  # of all indices that there can be: libpng would speak of those that are missing
        parts.append(_chunk(b"PLTE", header.palette.ljust(3 << header.depth, b"\0")))
    if header.transparent and header.colour != 0:
        parts.append(_chunk(b"tRNS", header.transparent))
    packed = [content[at:end] for at, end in header.data]
    held = sum(stride * rows for stride, rows in header.passes) <= _STORED
    stored = list(_checked(packed, header, held))
    parts += _chunk_of(b"IDAT", stored if held else packed)
    parts.append(_chunk(b"IEND", b""))
    return np.frombuffer(b"".join(parts), np.uint8)


def _checked(packed: list[bytes], header: Header, held: bool) -> Iterator[bytes]:
    """The rows as stored deflate blocks, if they are to be held; each row's filter is one that there is."""
    spans, total = [], 0
    for stride, rows in header.passes:
        spans.append((total, stride, total + stride * rows))
        total += stride * rows
    if held:
        yield b"\x78\x01"
    at, adler = 0, 1
    for piece in _inflated(packed, total):
        values = np.frombuffer(piece, np.uint8)
        for begin, stride, end in spans:
            low, high = max(begin, at), min(end, at + len(piece))
            if low < high:
                filters = values[low + (begin - low) % stride - at : high - at : stride]
                if len(filters) and filters.max() > 4:
                    raise Broken("decode", "the PNG's rows are damaged")
        at += len(piece)
        if held:
            adler = zlib.adler32(piece, adler)
            yield struct.pack("<BHH", at == total, len(piece), 0xFFFF ^ len(piece))
            yield piece
    if at < total:
        raise Broken("decode", "the PNG holds fewer rows than it says")
    if held:
        yield struct.pack(">I", adler)


def _inflated(packed: list[bytes], total: int) -> Iterator[bytes]:
    """So many bytes at the most, in pieces of a block."""
    inflate = isal_zlib.decompressobj()
    try:
        for part in packed:
            rest = part
            while total > 0:
                piece = inflate.decompress(rest, min(_BLOCK, total))
                if not piece:
                    break
                total -= len(piece)
                yield piece
                rest = inflate.unconsumed_tail
            if inflate.eof or total <= 0:
                return
    except isal_zlib.error as error:  # type: ignore[misc]  # its stub declares an instance
        raise Broken("decode", "the PNG's rows do not inflate") from error


def _chunk(kind: bytes, body: bytes) -> bytes:
    return b"".join(_chunk_of(kind, [body]))


def _chunk_of(kind: bytes, parts: list[bytes]) -> Iterator[bytes]:
    checksum = binascii.crc32(kind)
    for part in parts:
        checksum = binascii.crc32(part, checksum)
    yield struct.pack(">I4s", sum(map(len, parts)), kind)
    yield from parts
    yield struct.pack(">I", checksum)


def _grey_over_white(image: NDArray[np.generic], header: Header) -> Pixels:
    """One grey is see-through: compared at the depth in which it is stored."""
    key = int.from_bytes(header.transparent, "big")
    values = np.asarray(image).reshape(image.shape[:2])
    if header.depth < 8:
        key = key * 255 // ((1 << header.depth) - 1)
    eight = (values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values.astype(np.uint8)
    eight[values == key] = 255
    return np.asarray(cv2.cvtColor(eight, cv2.COLOR_GRAY2BGR), np.uint8)


_ROWS_AT_ONCE = 1 << 20


def over_white(image: NDArray[np.generic]) -> Pixels:
    """(h, w, 4) BGRA of 8 or 16 bits -> (h, w, 3) uint8, a part at a time."""
    high, wide = image.shape[:2]
    out = np.empty((high, wide, 3), np.uint8)
    step = max(1, _ROWS_AT_ONCE // wide)
    for top in range(0, high, step):
        part = np.asarray(image[top : top + step])
        if part.dtype == np.uint16:
            part = (part >> 8).astype(np.uint8)
        alpha = part[:, :, 3:].astype(np.uint16)
        mixed = part[:, :, :3] * alpha + 255 * (255 - alpha)  # 255 * 255 + 127 fits into 16 bits
        out[top : top + step] = (mixed + 127) // 255
    return out
