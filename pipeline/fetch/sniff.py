"""What the first bytes of a body say that it is; a host's Content-Type is not asked."""

from __future__ import annotations

ENOUGH = 64
"""So many first bytes decide."""

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jpeg2000"),
)
_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"mif1": "heic", b"msf1": "heic"}


def image_format(head: bytes) -> str | None:
    """The image format that `head` (at least 16 bytes of a body) begins, or None when it begins none."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        brands = [head[at : at + 4] for at in (8, *range(16, 64, 4))]  # the major one, then the compatible ones
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)
    if head[:4] == b"\x00\x00\x01\x00" and 0 < int.from_bytes(head[4:6], "little") < 256 and head[9:10] == b"\x00":
        return "ico"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124):
        return "bmp"
    return None


def looks_like(head: bytes) -> str:
    """In the words of a failure's detail: what these bytes are if they are no image."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")):
        return "xml or svg"
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<!--")):
        return "html"
    if text.startswith((b"{", b"[")):
        return "json"
    return "unknown format"
