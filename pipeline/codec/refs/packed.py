"""What undoes the compression of a source file: a stream of bytes, whatever packed it.

Each takes the packed bytes in pieces that are cut at the same places however the file is read, so that damage shows at
the same place; what comes out at a time is bounded, so that a bomb costs time and no memory.
"""

from __future__ import annotations

import bz2
import lzma
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from isal import isal_zlib

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE = 2**16
"""Packed bytes that go in, and unpacked ones that come out, at a time."""
_XZ_MEMORY = 256 * 2**20


class Damaged(Exception):
    """The bytes cannot be read on; what came out before is good, as far as it can be told before a checksum."""


class CutOff(Damaged):
    """The bytes end too early."""


class RefBytes(Protocol):
    """Bytes from an offset on."""

    def read(self, size: int) -> bytes:
        """The next bytes, fewer than `size` only at the end or before damage; raises Damaged where there are none."""


Unpack = Callable[[RefBytes], Iterator[bytes]]

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\0": "xz",
}
ENDINGS = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".bz2": "bzip2",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".xz": "xz",
    ".deflate": "deflate",
}
"""Endings of the names of packed files, and what packs them."""
UNREAD = {
    ".snappy": "Hadoop's framing of Snappy",
    ".lz4": "LZ4",
    ".lzo": "LZO",
    ".lzo_deflate": "LZO",
    ".br": "Brotli",
    ".lzma": "LZMA without a frame",
    ".z": "compress",
    ".zip": "a ZIP archive",
    ".tar": "a tar archive",
    ".tgz": "a tar archive",
    ".7z": "a 7-Zip archive",
    ".rar": "a RAR archive",
    ".xls": "an Excel workbook",
    ".xlsx": "an Excel workbook",
}
"""Endings of what is known and not read, and what it is."""


def packing(head: bytes) -> str:
    """What packed a file that begins like this; "" where it is none of those that are undone."""
    if head.startswith(b"BZh") and head[4:10] not in (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90"):
        return ""  # a text may begin so
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return "zstd"  # a frame that is to be skipped
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


def packing_of_name(name: str) -> str:
    """What a file's name says that it is packed with; "" where it says nothing."""
    dot = name.lower().rpartition(".")
    return ENDINGS.get("." + dot[2], "") if dot[1] else ""


def _inflated(file: RefBytes) -> Iterator[bytes]:
    """The members of a gzip file; zeros between and after them are padding."""
    return _members(file, "gzip", lambda: isal_zlib.decompressobj(wbits=31), padded=True)


def _deflated(file: RefBytes) -> Iterator[bytes]:
    return _members(file, "deflate", lambda: isal_zlib.decompressobj(wbits=15), padded=False)


def _members(file: RefBytes, what: str, open_member: Callable[[], Any], *, padded: bool) -> Iterator[bytes]:
    data = file.read(PIECE)
    while data:
        member = open_member()
        while not member.eof:
            try:
                out = member.decompress(data, PIECE)
            except isal_zlib.error as error:  # type: ignore[misc]  # its stub declares an instance
                raise Damaged(f"the {what} data is damaged") from error
            if out:
                yield out
            elif not data:
                raise CutOff(f"the {what} data is cut off")
            if not member.eof:
                data = member.unconsumed_tail or file.read(PIECE)
        data = member.unused_data or file.read(PIECE)
        while padded and data and not (data := data.lstrip(b"\0")):
            data = file.read(PIECE)


def _from_bzip2(file: RefBytes) -> Iterator[bytes]:
    return _streams(file, "bzip2", bz2.BZ2Decompressor, (OSError, ValueError))


def _from_xz(file: RefBytes) -> Iterator[bytes]:
    """Streams with zeros between and after them, as xz pads."""
    return _streams(
        file, "xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY), (lzma.LZMAError, MemoryError)
    )


def _streams(
    file: RefBytes, what: str, open_stream: Callable[[], Any], errors: tuple[type[Exception], ...]
) -> Iterator[bytes]:
    """The streams of a file, one after the other, in the way of the standard library's decompressors."""
    data = file.read(PIECE)
    while data:
        stream = open_stream()
        while not stream.eof:
            if stream.needs_input and not data:
                data = file.read(PIECE)
                if not data:
                    raise CutOff(f"the {what} data is cut off")
            try:
                out = stream.decompress(data, PIECE)
            except errors as error:
                raise Damaged(f"the {what} data is damaged") from error
            data = b""
            if out:
                yield out
        data = stream.unused_data or file.read(PIECE)
        while data and not (data := data.lstrip(b"\0")):
            data = file.read(PIECE)


def open_zstd() -> Any:
    """What undoes one frame of Zstandard."""
    return zstd.ZstdDecompressor()


def _from_zstd(file: RefBytes) -> Iterator[bytes]:
    return _streams(file, "zstd", open_zstd, (zstd.ZstdError, MemoryError))


UNPACK: dict[str, Unpack] = {
    "gzip": _inflated,
    "deflate": _deflated,
    "bzip2": _from_bzip2,
    "xz": _from_xz,
    "zstd": _from_zstd,
}
"""By what packed a file."""
