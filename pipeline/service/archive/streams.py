"""A file's bytes in order, as they are or out of gzip: how much comes out is bounded while it comes out."""

from __future__ import annotations

import zlib
from typing import BinaryIO, Protocol

from pipeline.service.archive.entries import SMALL, Limits, Refused

_PIECE = 64 * 2**10
_GZIP = 31
"""zlib's word for a member of gzip, with its checksum."""
_EMPTY_MEMBERS = 1000
"""Members of gzip without a byte, at the most."""


class Stream(Protocol):
    """Bytes in order."""

    def read(self, size: int) -> bytes:
        """So many bytes, fewer at the end only.  Raises Refused."""

    def skip(self, size: int) -> bool:
        """Whether there were so many bytes to pass over.  Raises Refused."""

    def is_whole(self) -> bool:
        """Whether the end, where there is one, has a mark of its own that says that nothing is missing."""


class Plain:
    """The bytes of a file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._size))

    def skip(self, size: int) -> bool:
        at = self._file.tell()
        there = size <= self._size - at
        self._file.seek(at + size if there else self._size)
        return there

    def is_whole(self) -> bool:
        return False


class Unpacked:
    """What comes out of a file of gzip: members one after the other, what follows them is left alone."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._file, self._limits = file, limits
        self._packer = zlib.decompressobj(_GZIP)
        self._in = b""
        self._out = b""
        self._packed = self.unpacked = 0
        self._of_member = self._empty = 0
        self._ended = False

    def read(self, size: int) -> bytes:
        if size <= len(self._out):
            found, self._out = self._out[:size], self._out[size:]
            return found
        parts = [self._out]
        missing = size - len(self._out)
        self._out = b""
        while missing > 0 and (some := self._more()):
            parts.append(some[:missing])
            self._out = some[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    def skip(self, size: int) -> bool:
        while size > 0 and (some := self.read(min(size, _PIECE))):
            size -= len(some)
        return size == 0

    def is_whole(self) -> bool:
        return self._ended

    def _more(self) -> bytes:
        """The next bytes, none at the end."""
        while not self._ended:
            self._in = self._in or self._file.read(_PIECE)
            if not self._in:
                raise Refused("truncated", "gzip ends before its end")
            before = len(self._in)
            try:
                found = self._packer.decompress(self._in, _PIECE)
            except zlib.error as error:
                raise Refused("damaged", f"gzip: {error}") from error
            self._in = self._packer.unused_data if self._packer.eof else self._packer.unconsumed_tail
            self._packed += before - len(self._in)
            self._of_member += len(found)
            if self._packer.eof:
                self._next_member()
            if found:
                self._count(len(found))
                return found
        return b""

    def _count(self, size: int) -> None:
        self.unpacked += size
        if self.unpacked > max(SMALL, self._limits.ratio * self._packed):
            raise Refused("inflates", f"{self._packed:,} bytes became {self.unpacked:,}")
        if self.unpacked > self._limits.unpacked:
            raise Refused("too_large", f"more than {self._limits.unpacked:,} bytes come out of it")

    def _next_member(self) -> None:
        self._empty += not self._of_member
        if self._empty > _EMPTY_MEMBERS:
            raise Refused("damaged", f"gzip has more than {_EMPTY_MEMBERS:,} empty members")
        self._of_member = 0
        if len(self._in) < 2:
            self._in += self._file.read(_PIECE)
        if self._in.startswith(b"\x1f\x8b"):
            self._packer = zlib.decompressobj(_GZIP)
        else:
            self._ended = True
