"""Whether a file ends before its own end, by its structure: asked when a decoder has refused it, or before."""

from __future__ import annotations

import struct

from pipeline.images import boxes, tiff


def is_torn(content: bytes, kind: str) -> bool:
    """The file announces more bytes than there are; False where its form does not tell."""
    try:
        way = _WAYS.get(kind)
        return way is not None and way(content)
    except (struct.error, IndexError):
        return True  # a number of its header is cut in two


def _webp(content: bytes) -> bool:
    return len(content) < 30 or 8 + int.from_bytes(content[4:8], "little") > len(content)


def _bmp(content: bytes) -> bool:
    size: int
    offset: int
    size, _, offset, header = struct.unpack_from("<IIII", content, 2)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", content, 18)
        packing = 0
    else:
        width, height, _, bits, packing = struct.unpack_from("<iiHHI", content, 18)
    rows = (width * bits + 31) // 32 * 4 * abs(height) if packing in (0, 3, 6) else 0
    return max(size if size > offset else 0, offset + rows) > len(content)


def _gif(content: bytes) -> bool:
    """Torn within the first frame, or before it: nothing else is shown."""
    at = 13 + (3 << (content[10] & 7) + 1 if content[10] & 0x80 else 0)
    while True:
        kind = content[at]
        if kind == 0x3B:
            return False
        if kind == 0x21:
            at = _behind_blocks(content, at + 2)
        elif kind == 0x2C:
            flags = content[at + 9]
            at += 10 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
            _behind_blocks(content, at + 1)
            return False
        else:
            at += 1


def _behind_blocks(content: bytes, at: int) -> int:
    while content[at]:
        at += 1 + content[at]
    return at + 1


def _ico(content: bytes) -> bool:
    (count,) = struct.unpack_from("<H", content, 4)
    entries = (struct.unpack_from("<II", content, 6 + 16 * number + 8) for number in range(count))
    return any(size + at > len(content) for size, at in entries)


def _jpeg2000(content: bytes) -> bool:
    if content.startswith(b"\xff\x4f"):
        return not content.rstrip(b"\0").endswith(b"\xff\xd9")
    if boxes.is_torn(content):
        return True
    streams = [(first, last) for kind, first, last in boxes.boxes(content, 0, len(content)) if kind == b"jp2c"]
    return not streams or not content[streams[0][0] : streams[0][1]].rstrip(b"\0").endswith(b"\xff\xd9")


def _jxl(content: bytes) -> bool:
    kinds = {kind for kind, _, _ in boxes.boxes(content, 0, len(content))}
    return boxes.is_torn(content) or not kinds & {b"jxlc", b"jxlp"}


def _heif(content: bytes) -> bool:
    kinds = {kind for kind, _, _ in boxes.boxes(content, 0, len(content))}
    return boxes.is_torn(content) or not kinds & {b"meta", b"moov"} or (b"mdat" not in kinds and b"idat" not in content)


_WAYS = {"webp": _webp, "bmp": _bmp, "gif": _gif, "ico": _ico, "tiff": tiff.is_torn, "avif": _heif,
         "heif": _heif, "jpeg2000": _jpeg2000, "jxl": _jxl}  # fmt: skip
