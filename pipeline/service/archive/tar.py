"""tar as POSIX's ustar and pax, GNU and star write it, header by header: what is in it, and never a file by its name.

Of pax the fields path and size count, and those that say that a file is sparse.  Links, devices, pipes and folders
have no bytes behind their header, whatever their size says, as GNU tar and Python read them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.service.archive.entries import Entry, Limits, Refused
from pipeline.service.archive.forms import BLOCK, DIGITS, is_header
from pipeline.service.archive.names import named, shown, text_of
from pipeline.service.archive.streams import Stream

_FIELD = re.compile(rb"([1-9][0-9]{0,8}) ")
_TAIL = 2**20
"""Bytes behind the end mark that are looked at, so that gzip's checksum is."""
_FILES = frozenset(b"0\x007")
_LINKS = frozenset(b"12")
_DEVICES = frozenset(b"346")
_FOLDER, _DUMPED_FOLDER = b"5D"
_LONG_NAME, _LONG_LINK, _PAX, _PAX_OF_ALL, _SUN_PAX, _SPARSE = b"LKxgXS"
_HEADERS = frozenset((_LONG_NAME, _LONG_LINK, _PAX, _PAX_OF_ALL, _SUN_PAX))


@dataclass
class _Ahead:
    """What headers said of the next entry.  unread: why its name is not known."""

    name: bytes | None = None
    size: int | None = None
    sparse: bool = False
    unread: str = ""


class Tar:
    """The entries of one archive of tar, in order."""

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self._stream, self._limits = stream, limits
        self._ahead = _Ahead()
        self._headers = 0

    def __iter__(self) -> Iterator[Entry]:
        """Raises Refused."""
        number = 0
        while (block := self._header()) is not None:
            kind = block[156]
            size = self._size_of(block[124:136])
            if kind in _HEADERS:
                self._read_ahead(kind, size)
                continue
            ahead, self._ahead = self._ahead, _Ahead()
            yield self._entry(number, block, size if ahead.size is None else ahead.size, ahead)
            number += 1

    def _header(self) -> bytes | None:
        """The next header; None at the end."""
        block = self._stream.read(BLOCK)
        if not self._headers and not is_header(block) and any(block):
            raise Refused("unknown", "what comes out of gzip is no tar")
        if len(block) == BLOCK and any(block):
            if not is_header(block):
                raise Refused("damaged", f"header {self._headers + 1:,} of tar has a wrong checksum")
            self._headers += 1
            if self._headers > self._limits.entries:
                raise Refused("too_many_entries", f"more than {self._limits.entries:,}")
            return block
        if len(block) == BLOCK:
            second = self._stream.read(BLOCK)
            if any(second):
                raise Refused("damaged", "a block of zeros stands between entries of tar")
            self._stream.skip(_TAIL)
        elif block or not self._stream.is_whole():
            raise Refused("truncated", "tar has no end mark")
        if self._ahead.name is not None or self._ahead.unread:
            raise Refused("truncated", "a header of tar speaks of an entry that does not follow")
        return None

    def _entry(self, number: int, block: bytes, size: int, ahead: _Ahead) -> Entry:
        kind = block[156]
        raw = _name_of(block) if ahead.name is None else ahead.name
        name = text_of(raw)
        where = shown(raw) if name is None else name
        reason, detail = "", ""
        path: tuple[str, ...] = ()
        if kind in _LINKS:
            reason, size = "link", 0
        elif kind in _DEVICES:
            reason, size = "device", 0
        elif kind in (_FOLDER, _DUMPED_FOLDER) or (kind in _FILES and raw.endswith(b"/")):
            self._pass_over(0 if kind == _FOLDER else size)
            return Entry(number, where)
        elif kind == _SPARSE or ahead.sparse:
            reason = "sparse"
            if kind == _SPARSE:
                self._pass_over_map(block)
        elif kind not in _FILES:
            reason, detail = "type", f"tar's kind {chr(kind)!r}"
        elif ahead.unread:
            reason, detail = "bad_name", ahead.unread
        elif name is None:
            reason, detail = "bad_name", "it is not UTF-8"
        else:
            path, reason, detail = named(name, self._limits.name)
            if not reason and size > self._limits.file:
                reason, detail = "too_large", f"{size:,} bytes"
        if reason:
            self._pass_over(size)
            return Entry(number, where, path, reason, detail)
        content = self._stream.read(size)
        if len(content) < size or not self._stream.skip(-size % BLOCK):
            raise Refused("truncated", f"entry {number + 1:,} is cut off")
        return Entry(number, where, path, content=content)

    def _pass_over(self, size: int) -> None:
        if size > self._limits.unpacked:
            raise Refused("damaged", f"an entry of tar says that it has {size:,} bytes")
        if not self._stream.skip(size + -size % BLOCK):
            raise Refused("truncated", "the last entry is cut off")

    def _pass_over_map(self, block: bytes) -> None:
        """More blocks of where a sparse file has bytes."""
        goes_on = block[482]
        while goes_on:
            more = self._stream.read(BLOCK)
            if len(more) < BLOCK:
                raise Refused("truncated", "the map of a sparse file is cut off")
            self._headers += 1
            if self._headers > self._limits.entries:
                raise Refused("too_many_entries", "blocks of a sparse file's map")
            goes_on = more[504]

    def _read_ahead(self, kind: int, size: int) -> None:
        """A header about the entry that follows, or about all of them."""
        if size > self._limits.name + BLOCK:
            self._pass_over(size)
            if kind != _LONG_LINK:
                self._ahead.unread = f"a header about it has {size:,} bytes"
            return
        content = self._stream.read(size)
        if len(content) < size or not self._stream.skip(-size % BLOCK):
            raise Refused("truncated", "a header of tar is cut off")
        if kind == _LONG_NAME:
            self._ahead.name = content.split(b"\0", 1)[0]
        elif kind != _LONG_LINK:
            ahead = _Ahead() if kind == _PAX_OF_ALL else self._ahead
            for key, value in _fields(content):
                _take(ahead, key, value)
            if kind == _PAX_OF_ALL and ahead != _Ahead():
                raise Refused("damaged", "a header of tar gives every entry one name or size")

    def _size_of(self, field: bytes) -> int:
        if field[0] & 0x80:
            size = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
            if field[0] & 0x40 or size >= 2**63:
                raise Refused("damaged", "a size in tar is negative or beyond any file")
            return size
        found = DIGITS.fullmatch(field)
        if found is None:
            raise Refused("damaged", "a size in tar is no number")
        return int(found[1] or b"0", 8)


def _name_of(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].split(b"\0", 1)[0]
        return prefix + b"/" + name if prefix else name
    return name


def _fields(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`length key=value\\n`, one after the other."""
    at = 0
    while at < len(content):
        found = _FIELD.match(content, at)
        end = at + int(found[1]) if found else 0
        if found is None or end > len(content) or end <= found.end() or content[end - 1 : end] != b"\n":
            raise Refused("damaged", "a pax header of tar is not of its form")
        key, equals, value = content[found.end() : end - 1].partition(b"=")
        if not equals or not key:
            raise Refused("damaged", "a pax header of tar is not of its form")
        yield key, value
        at = end


def _take(ahead: _Ahead, key: bytes, value: bytes) -> None:
    if key == b"path":
        ahead.name = value or None
    elif key == b"size" and value:
        if not re.fullmatch(rb"[0-9]{1,18}", value):
            raise Refused("damaged", "a size in a pax header of tar is no number")
        ahead.size = int(value)
    elif key == b"size":
        ahead.size = None
    elif key.startswith((b"GNU.sparse.", b"SCHILY.realsize")):
        ahead.sparse = True
