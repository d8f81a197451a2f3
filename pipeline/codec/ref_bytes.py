"""A source file as a stream of bytes from an offset, decompressed where it is gzip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Protocol

from isal import isal_zlib

from pipeline.errors import FormatError

GZIP_MAGIC = b"\x1f\x8b"
PIECE = 2**20
"""Bytes that readers take at a time."""
GZIP_PIECE = 2**16
"""Compressed bytes that go in, and decompressed ones that come out, at a time."""


class Damaged(Exception):
    """The compressed bytes cannot be read on; what came out before is good.  Never leaves this package."""


class RefBytes(Protocol):
    """Bytes from an offset on."""

    def read(self, size: int) -> bytes:
        """The next bytes, fewer than `size` only at the end or before damage; raises Damaged where there are none."""


def open_bytes(file: BinaryIO, name: str, at: int) -> RefBytes:
    """The file's bytes, or what they decompress to, from that offset of them on.  Raises FormatError."""
    file.seek(0)
    magic = file.read(2)
    file.seek(0)
    if magic == GZIP_MAGIC:
        return _Gzip(file, name, at)
    if magic and name.lower().endswith(".gz"):
        raise FormatError(
            f"{name} is not what its name says", "it does not begin as gzip does", "compress it, or name it without .gz"
        )
    file.seek(at)
    return _Plain(file)


class _Plain:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        while len(data) < size and (more := self._file.read(size - len(data))):  # a raw file may give less
            data += more
        return data


class _Gzip:
    """An offset within gzip is reached by decompressing up to it.

    The input goes in by pieces that are always cut at the same places, so damage shows at the same place however
    the file is read.
    """

    def __init__(self, file: BinaryIO, name: str, at: int) -> None:
        self._pieces = _inflated(_Plain(file))
        self._waiting = b""
        self._damage: Damaged | None = None
        while at > 0:
            skipped = self.read(min(at, PIECE))
            if not skipped:
                raise FormatError(f"{name} is shorter than it was", "", "was it replaced while it was read?")
            at -= len(skipped)

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        missing = size
        while missing and (self._waiting or self._advance()):
            part, self._waiting = self._waiting[:missing], self._waiting[missing:]
            parts.append(part)
            missing -= len(part)
        if self._damage is not None and not parts and size:
            raise self._damage
        return b"".join(parts)

    def _advance(self) -> bool:
        try:
            self._waiting = next(self._pieces, b"")
        except Damaged as damage:
            self._damage = damage
        return bool(self._waiting)


def _inflated(file: RefBytes) -> Iterator[bytes]:
    """The decompressed bytes of all members of a gzip file; zeros between and after them are padding."""
    data = file.read(GZIP_PIECE)
    while data:
        member = isal_zlib.decompressobj(wbits=31)
        while not member.eof:
            try:
                out = member.decompress(data, GZIP_PIECE)
            except isal_zlib.error as error:  # type: ignore[misc]  # its stub declares an instance
                raise Damaged("the gzip data is damaged") from error
            if out:
                yield out
            elif not data:
                raise Damaged("the gzip data is cut off")
            if not member.eof:
                data = member.unconsumed_tail or file.read(GZIP_PIECE)
        data = member.unused_data or file.read(GZIP_PIECE)
        while data and not (data := data.lstrip(b"\0")):
            data = file.read(GZIP_PIECE)
