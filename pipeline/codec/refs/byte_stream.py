"""A source file as a stream of bytes from an offset: unpacked where it is packed, and a text in UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from pipeline.codec.refs.packed import UNPACK, Damaged, RefBytes, packing, packing_of_name
from pipeline.errors import FormatError

__all__ = ["PIECE", "Damaged", "RefBytes", "open_bytes"]

PIECE = 2**20
"""Bytes that readers take at a time."""


def open_bytes(file: BinaryIO, name: str, at: int, encoding: str = "") -> RefBytes:
    """The file's bytes, or what they unpack to, from that offset of them on.

    encoding: another one than UTF-8; the bytes and the offset are then those of the same text in UTF-8.
    Raises FormatError.
    """
    file.seek(0)
    head = _Plain(file).read(16)
    file.seek(0)
    packed = packing(head)
    promised = packing_of_name(name)
    if promised == "deflate" and not packed:
        packed = promised  # it begins with nothing that would tell
    if head and promised and promised != packed:
        raise FormatError(
            f"{name} is not what its name says",
            f"it does not begin as {promised} does",
            f"compress it, or name it without .{name.rpartition('.')[2]}",
        )
    if packed and encoding:
        return _Pieces(_in_utf8(_Pieces(UNPACK[packed](_Plain(file)), name, 0), encoding), name, at)
    if packed:
        return _Pieces(UNPACK[packed](_Plain(file)), name, at)
    if encoding:
        return _Pieces(_in_utf8(_Plain(file), encoding), name, at)
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


class _Pieces:
    """What can only be read from its beginning: an offset is reached by reading up to it."""

    def __init__(self, pieces: Iterator[bytes], name: str, at: int) -> None:
        self._pieces = pieces
        self._waiting = b""
        self._damage: Damaged | None = None
        while at > 0:
            skipped = self.read(min(at, PIECE))
            if not skipped:
                raise FormatError(
                    f"{name} is shorter than it was",
                    "the file was replaced while it was read",
                    "the next run reads it again",
                )
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


def _in_utf8(file: RefBytes, encoding: str) -> Iterator[bytes]:
    """The text in UTF-8; what the encoding does not know stays what it is, which is no UTF-8 and costs its row."""
    wide = encoding.startswith(("utf-16", "utf-32"))
    errors = "surrogatepass" if wide else "surrogateescape"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    data = b"start"
    while data:
        data = file.read(PIECE)
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeError as error:
            raise Damaged(f"the {encoding} text is damaged") from error
        if text:
            yield text.encode("utf-8", errors)
