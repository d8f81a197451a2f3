"""What a file is, by how it begins: an archive that is read, or one that is not."""

from __future__ import annotations

import re

BLOCK = 512
"""Bytes of a header of tar."""
DIGITS = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
"""How zip's headers begin."""
_CHECKSUM = slice(148, 156)
GZIP = b"\x1f\x8b"
_PACKERS = {
    b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar", b"\x1f\x9d": "compress", b"\x04\x22\x4d\x18": "lz4",
}  # fmt: skip


def is_header(block: bytes) -> bool:
    """Whether a block of 512 bytes has the checksum of a header."""
    if len(block) < BLOCK or not any(block):
        return False
    said = DIGITS.fullmatch(block[_CHECKSUM])
    if said is None or not said[1]:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    plain = sum(rest)
    missing = plain - int(said[1], 8)
    return missing == 0 or (missing > 0 and missing == 256 * sum(one > 127 for one in rest))  # of signed bytes


def is_archive(head: bytes) -> bool:
    """Whether a file that begins so (262 bytes or more) is a tar, tar.gz or zip, by what it holds."""
    return head.startswith((GZIP, LOCAL, END)) or is_header(head[:BLOCK]) or head[257:262] == b"ustar"


def packed_by(head: bytes) -> str:
    """The name of an archive's or a packer's form; "" for what begins as none that is known."""
    if is_archive(head):
        return "gzip" if head.startswith(GZIP) else "zip" if head.startswith(b"PK") else "tar"
    return next((name for start, name in _PACKERS.items() if head.startswith(start)), "")
