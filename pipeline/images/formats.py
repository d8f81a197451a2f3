"""What kind of image bytes are, by how they begin."""

from __future__ import annotations

_AVIF = frozenset((b"avif", b"avis"))
_HEIF = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"avci", b"jpeg", b"vvic"))
_CONTAINERS = frozenset((b"mif1", b"mif2", b"msf1", b"miaf", b"mif3", b"1pic", b"MiAB", b"MiPr"))
_JXL = b"\0\0\0\x0cJXL \r\n\x87\n"
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0",
           b"MM\0+", b"\0\0\1\0", _JP2, _JXL, b"\xff\x4f\xff\x51")  # fmt: skip
_HEADS = 512
"""Bytes in which a container without a telling brand is searched for what its items are coded in."""


def sniff(content: bytes) -> str | None:
    """One of "jpeg", "png", "gif", "webp", "bmp", "tiff", "avif", "heif", "jxl", "jpeg2000", "ico"; or None."""
    if content.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "webp"
    if content.startswith(b"BM") and len(content) > 26 and content[6:10] == b"\0\0\0\0":
        return "bmp"
    if content.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "tiff"
    if content.startswith((_JP2, b"\xff\x4f\xff\x51")):
        return "jpeg2000"
    if content.startswith((_JXL, b"\xff\x0a")):
        return "jxl"
    if content.startswith(b"\0\0\1\0") and len(content) > 22:
        return "ico"
    return _by_brands(content) if content[4:8] == b"ftyp" else None


def begins(content: bytes) -> bool:
    """These few bytes are the beginning of how an image begins: a body that was torn at once."""
    if not 0 < len(content) < 27:
        return False
    if len(content) < 16 and (
        any(start.startswith(content) for start in _STARTS)
        or content.startswith(b"RIFF")
        or (content.startswith(b"\0\0\0") and b"ftyp".startswith(content[4:8]))
    ):
        return True
    return content.startswith(b"BM") or (content.startswith(b"\0\0\1\0") and len(content) < 23)


def _by_brands(content: bytes) -> str | None:
    """Of an ISO base media file: its major brand where that names a coding, else the compatible ones."""
    length = int.from_bytes(content[:4], "big")
    end = min(length if length >= 16 else 16, len(content), 1024)
    brands = [content[8:12], *(content[at : at + 4] for at in range(16, end - 3, 4))]
    for brand in brands:
        if brand in _AVIF:
            return "avif"
        if brand in _HEIF:
            return "heif"
    if not _CONTAINERS.intersection(brands):
        return None
    return "avif" if b"av01" in content[:_HEADS] else "heif"
