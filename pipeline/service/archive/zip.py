"""zip by its central directory: each entry's own header has to say the same, and no two may share a byte.

Stored and deflated entries of one file without encryption; sizes of 64 bits.
"""

from __future__ import annotations

import stat
import struct
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import numpy as np

from pipeline.service.archive.entries import SMALL, Entry, Limits, Refused
from pipeline.service.archive.forms import CENTRAL, END, LOCAL
from pipeline.service.archive.names import named, shown, text_of

_END_64, _PLACE_64 = b"PK\6\6", b"PK\6\7"
_IN_64 = 0xFFFFFFFF
_UTF_8, _SIZES_BEHIND, _ENCRYPTED = 0x800, 0x8, 0x2041
_STORED, _DEFLATED = 0, 8
_UNIX = (3, 19)
_FOLDER = 0x10
_PIECE = 64 * 2**10
_RAW = -15
"""zlib's word for deflate without a head."""


class _Directory(NamedTuple):
    """Where the central directory lies, and how many entries it says that it has."""

    begin: int
    end: int
    entries: int
    is_64: bool


@dataclass(frozen=True, slots=True)
class _Said:
    """What a header says of an entry.  name: as it stands there."""

    flags: int
    method: int
    crc: int
    packed: int
    unpacked: int
    name: bytes
    mode: int = 0
    is_folder: bool = False
    begin: int = 0


class Zip:
    """The entries of one zip file, in the order of its directory."""

    def __init__(self, file: BinaryIO, size: int, limits: Limits) -> None:
        """Raises Refused."""
        self._file, self._limits = file, limits
        self._most = max(SMALL, limits.ratio * size)
        self._unpacked = 0
        self._directory = _find_directory(file, size)
        if self._directory.entries > limits.entries:
            raise Refused("too_many_entries", f"{self._directory.entries:,} of at most {limits.entries:,}")

    def __iter__(self) -> Iterator[Entry]:
        """Raises Refused."""
        begins = array("Q")
        for said in self._central():
            begins.append(said.begin)
        found = len(begins) if self._directory.is_64 else len(begins) % 2**16
        if found != self._directory.entries:
            raise Refused("damaged", f"zip says that it has {self._directory.entries:,} entries, and lists {found:,}")
        ordered = np.sort(np.frombuffer(begins, np.uint64)) if begins else np.zeros(0, np.uint64)
        for number, said in enumerate(self._central()):
            after = int(np.searchsorted(ordered, np.uint64(said.begin), side="right"))
            shared = after > 1 and int(ordered[after - 2]) == said.begin  # two entries begin there
            end = int(ordered[after]) if after < len(ordered) else self._directory.begin
            yield self._entry(number, said, said.begin if shared else end)

    def _central(self) -> Iterator[_Said]:
        at = self._directory.begin
        count = 0
        while at < self._directory.end:
            self._file.seek(at)
            head = self._file.read(46)
            if len(head) < 46 or head[:4] != CENTRAL:
                raise Refused("damaged", "zip's directory is not of its form")
            made, _, flags, method, _, crc, packed, unpacked, name, extra, comment, disk, _, mode, begin = (
                struct.unpack("<4x4HI3I5H2I", head)
            )
            behind = self._file.read(name + extra)
            at += 46 + name + extra + comment
            count += 1
            if len(behind) < name + extra or at > self._directory.end or disk not in (0, 0xFFFF):
                raise Refused("damaged", "zip's directory is cut off, or of several files")
            if count > self._limits.entries:
                raise Refused("too_many_entries", f"more than {self._limits.entries:,}")
            unpacked, packed, begin = _in_64(behind[name:], unpacked, packed, begin)
            unix = mode >> 16 if made >> 8 in _UNIX else 0
            is_folder = behind[:name].endswith(b"/") or bool(mode & _FOLDER and not unix) or stat.S_ISDIR(unix)
            yield _Said(flags, method, crc, packed, unpacked, behind[:name], unix, is_folder, begin)

    def _entry(self, number: int, said: _Said, end: int) -> Entry:
        """end: where the next entry, or the directory, begins."""
        name = text_of(said.name, old=not said.flags & _UTF_8)
        where = shown(said.name) if name is None else name
        if said.is_folder and not said.unpacked:
            return Entry(number, where)
        reason, detail = _of_kind(said.mode), ""
        path: tuple[str, ...] = ()
        if not reason and name is None:
            reason, detail = "bad_name", "it is not UTF-8"
        if not reason and name is not None:
            path, reason, detail = named(name, self._limits.name)
        if not reason:
            reason, detail = self._of_sizes(said)
        if not reason:
            found = self._content(said, end)
            if isinstance(found, bytes):
                return Entry(number, where, path, content=found)
            reason, detail = found
        return Entry(number, where, path, reason, detail)

    def _of_sizes(self, said: _Said) -> tuple[str, str]:
        if said.flags & _ENCRYPTED:
            return "encrypted", ""
        if said.method not in (_STORED, _DEFLATED):
            return "method", f"zip's method {said.method}"
        if said.unpacked > self._limits.file:
            return "too_large", f"{said.unpacked:,} bytes"
        if said.unpacked > max(SMALL, self._limits.ratio * said.packed):
            return "inflates", f"{said.packed:,} bytes are said to become {said.unpacked:,}"
        return "", ""

    def _content(self, said: _Said, end: int) -> bytes | tuple[str, str]:
        """The entry's bytes, or why it has none."""
        self._file.seek(said.begin)
        head = self._file.read(30)
        if len(head) < 30 or head[:4] != LOCAL:
            return "disagrees", "no header stands where zip's directory says"
        flags, method, crc, packed, unpacked, name, extra = struct.unpack("<6x2H4x3I2H", head)
        behind = self._file.read(name + extra)
        begin = said.begin + 30 + name + extra
        if begin + said.packed > end:
            return "overlap", ""
        unpacked, packed, _ = _in_64(behind[name:], unpacked, packed, 0)
        late = bool(flags & _SIZES_BEHIND)
        mine = (said.name, said.method, said.flags & _ENCRYPTED)
        if mine != (behind[:name], method, flags & _ENCRYPTED) or (
            (crc, packed, unpacked) != (said.crc, said.packed, said.unpacked) and not (late and not crc)
        ):
            return "disagrees", "its own header and zip's directory differ"
        self._unpacked += said.unpacked
        if self._unpacked > self._most:
            raise Refused("inflates", f"more than {self._most:,} bytes come out of it")
        if self._unpacked > self._limits.unpacked:
            raise Refused("too_large", f"more than {self._limits.unpacked:,} bytes come out of it")
        found = self._stored(said) if said.method == _STORED else self._inflated(said)
        if isinstance(found, bytes) and zlib.crc32(found) != said.crc:
            return "checksum", ""
        return found

    def _stored(self, said: _Said) -> bytes | tuple[str, str]:
        if said.packed != said.unpacked:
            return "disagrees", "it is stored, and has two sizes"
        return self._file.read(said.packed)

    def _inflated(self, said: _Said) -> bytes | tuple[str, str]:
        packer = zlib.decompressobj(_RAW)
        left, size = said.packed, 0
        parts: list[bytes] = []
        piece = b""
        try:
            while not packer.eof and size <= said.unpacked:
                if not piece:
                    if not left or not (piece := self._file.read(min(_PIECE, left))):
                        break
                    left -= len(piece)
                parts.append(packer.decompress(piece, _PIECE))
                size += len(parts[-1])
                piece = packer.unconsumed_tail
        except zlib.error as error:
            return "checksum", str(error)
        if size != said.unpacked or not packer.eof:
            return "disagrees", f"it is said to have {said.unpacked:,} bytes"
        return b"".join(parts)


def _of_kind(mode: int) -> str:
    """mode: of Unix, 0 where zip does not say it."""
    kind = stat.S_IFMT(mode)
    if kind in (0, stat.S_IFREG):
        return ""
    return "link" if kind == stat.S_IFLNK else "type" if kind == stat.S_IFDIR else "device"


def _in_64(extra: bytes, unpacked: int, packed: int, begin: int) -> tuple[int, int, int]:
    """The same, with the numbers of 64 bits that stand in their stead."""
    if _IN_64 not in (unpacked, packed, begin):
        return unpacked, packed, begin
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            numbers = iter(struct.unpack_from(f"<{size // 8}Q", extra[at + 4 : at + 4 + size].ljust(size, b"\0")))
            return tuple(next(numbers, one) if one == _IN_64 else one for one in (unpacked, packed, begin))  # type: ignore[return-value]
        at += 4 + size
    return unpacked, packed, begin


def _find_directory(file: BinaryIO, size: int) -> _Directory:
    """Raises Refused."""
    first = max(0, size - 22 - 0xFFFF)
    file.seek(first)
    tail = file.read()
    at = len(tail)
    while (at := tail.rfind(END, 0, at + 3)) >= 0:
        if at + 22 <= len(tail) and at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail):
            break
    if at < 0:
        raise Refused("truncated", "zip has no directory at its end")
    disk, first_disk, _, count, length, begin = struct.unpack_from("<4x4H2I", tail, at)
    end, is_64 = first + at, False
    if 0xFFFF in (count, disk) or _IN_64 in (length, begin):
        file.seek(max(0, end - 20))
        place = file.read(20)
        if place[:4] == _PLACE_64:
            (end_64,) = struct.unpack_from("<8xQ", place)
            file.seek(min(end_64, size))
            record = file.read(56)
            if record[:4] != _END_64 or len(record) < 56:
                raise Refused("damaged", "zip's directory is not where zip says")
            disk, first_disk, _, count, length, begin = struct.unpack_from("<16x2I4Q", record)
            end, is_64 = end_64, True
    if disk or first_disk:
        raise Refused("damaged", "zip is of several files")
    if begin + length != end:
        raise Refused("damaged", "zip's directory is not where zip says")
    return _Directory(begin, end, count, is_64)
