"""What kind of image bytes are, by how they begin."""

from __future__ import annotations

_BRANDS = {b"avif": "avif", b"avis": "avif", b"mif1": "heif", b"heic": "heif", b"heix": "heif", b"msf1": "heif"}


def sniff(content: bytes) -> str | None:
    """ "jpeg", "png", "gif", "webp", "bmp", "tiff", "avif", "heif", "jpeg2000", "ico", or None for none of them."""
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
    if content.startswith(b"\0\0\0\x0cjP  \r\n\x87\n") or content.startswith(b"\xff\x4f\xff\x51"):
        return "jpeg2000"
    if content.startswith(b"\0\0\1\0") and len(content) > 22:
        return "ico"
    if content[4:8] == b"ftyp":
        return _BRANDS.get(content[8:12]) or ("avif" if b"avif" in content[8:40] else None)
    return None
