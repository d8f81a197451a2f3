"""A LevelDB, read by its files: the tables that its manifest names, and the log behind them.

LevelDB's reading packages load everything into memory, leave out damaged tables without a word, or have no wheels for
today's Pythons.  The forms are those of LevelDB's own documents (table_format, log_format).  Each block, and each part
of a log's record, is held against its checksum whenever it is read.
"""

from __future__ import annotations

import mmap
import re
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.errors import FormatError
from pipeline.training.packages import demand

_MAGIC = 0xDB4775248B80FB57
_FOOTER, _LOG_BLOCK = 48, 32768
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4  # parts of a log's record
_COMPARATOR, _LOG, _NEXT, _SEQUENCE, _POINTER, _GONE, _TABLE, _LOG_BEFORE = 1, 2, 3, 4, 5, 6, 7, 9  # of the manifest
_DELETED, _PUT = 0, 1
_ANEW = "fetch the database again, or make it anew"
T = TypeVar("T")

_KEPT = 16  # blocks that stay unpacked


class _Cut(Exception):
    """Bytes that end, or say what cannot be: the reason as a sentence."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value lies: which file, which block, from which byte to which.  block -1: among the log's values."""

    file: int
    block: int
    size: int
    begin: int
    end: int


Write = tuple[bytes, int, _Place | None]
"""A key, its number in the order of writes, and where its value lies; None: the key was deleted."""


class LevelDb:
    """The records of a LevelDB, in the order of their keys; any thread may read.

    Raises FormatError for a table that is missing, cut or damaged, for a log that ends within a record, and for bytes
    that do not match their checksum; SolverError where the package that computes checksums is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._crc = demand("google_crc32c", f"the LevelDB {path}")
        self._tables: list[Path] = []
        self._maps: list[mmap.mmap] = []
        self._logged: list[bytes] = []
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        newest: dict[bytes, tuple[int, _Place | None]] = {}
        for key, sequence, place in self._all():
            if key not in newest or newest[key][0] < sequence:
                newest[key] = (sequence, place)
        live = sorted((key, place) for key, (_, place) in newest.items() if place is not None)
        self.keys = [key for key, _ in live]
        self._places = [place for _, place in live]

    def read(self, numbers: Sequence[int]) -> Iterator[bytes | memoryview]:
        """The values of these records.  Raises FormatError for one whose block was damaged since it was opened."""
        for number in numbers:
            place = self._places[number]
            if place.block < 0:
                yield self._logged[place.begin]
            else:
                try:
                    block = self._block(place.file, place.block, place.size)
                except _Cut as error:
                    key = self.keys[number].decode("utf-8", "backslashreplace")
                    raise self._damaged(self._tables[place.file], f"{error}; record '{key}' lies in it") from error
                yield memoryview(block)[place.begin : place.end]

    def close(self) -> None:
        """Forgets the records; what was read stays valid."""
        self._maps, self._logged = [], []
        self._blocks.clear()

    def _all(self) -> Iterator[Write]:
        current = self.path / "CURRENT"
        name = current.read_text(errors="replace").strip()
        if not re.fullmatch(r"MANIFEST-\d+", name):
            says = f"it names no manifest: {name[:40]!r}"
            raise FormatError(f"CURRENT of the LevelDB {self.path} is damaged", says, _ANEW)
        manifest = self.path / name
        tables, logs = self._guarded(manifest, lambda: _manifest(_records(manifest.read_bytes(), self._crc)))
        for number, size in sorted(tables.items()):
            names = [self.path / f"{number:06d}.{ending}" for ending in ("ldb", "sst")]
            table = next((name for name in names if name.is_file()), names[0])
            yield from self._guarded(table, partial(self._table, table, size))
        for log in sorted(self.path.glob("*.log")):
            if log.stem.isdecimal() and int(log.stem) in logs:
                yield from self._guarded(log, partial(self._log, log))

    def _guarded(self, file: Path, read: Callable[[], T]) -> T:
        """What `read` gives.  Raises FormatError, which names the file, for whatever it finds wrong."""
        try:
            return read()
        except (_Cut, OSError, ValueError, IndexError, struct.error, pa.ArrowException) as error:
            says = getattr(error, "strerror", None) or str(error) or "it ends too early"
            raise self._damaged(file, says) from error

    def _damaged(self, file: Path, says: str) -> FormatError:
        return FormatError(f"{file.name} of the LevelDB {self.path} is damaged", says, _ANEW)

    def _table(self, path: Path, size: int) -> list[Write]:
        if path.stat().st_size != size:
            raise _Cut(f"it has {path.stat().st_size} bytes of {size}")
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._maps.append(content)
        self._tables.append(path)
        number = len(self._maps) - 1
        footer = content[-_FOOTER:]
        if struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
            raise _Cut("it does not end as a table ends")
        _, at = _varint(footer, 0)
        _, at = _varint(footer, at)
        offset, at = _varint(footer, at)
        length, _ = _varint(footer, at)
        last, found = b"", []
        index = self._block(number, offset, length)
        for bound, begin, _ in _entries(index):
            block, at = _varint(index, begin)
            block_size, _ = _varint(index, at)
            try:
                entries = self._block(number, block, block_size)
            except _Cut as error:
                raise _Cut(f"{error}; the records that lie in it are {_between(last, bound[:-8])}") from error
            for key, start, end in _entries(entries):
                if len(key) < 8 or key[:-8] < last:
                    raise _Cut("its keys are not in order")
                last = key[:-8]
                sequence, kind = divmod(int.from_bytes(key[-8:], "little"), 256)
                place = _Place(number, block, block_size, start, end) if kind == _PUT else None
                found.append((last, sequence, place))
        return found

    def _block(self, number: int, offset: int, size: int) -> bytes:
        with self._lock:
            kept = self._blocks.get((number, offset))
            if kept is not None:
                self._blocks.move_to_end((number, offset))
                return kept
        content = self._maps[number]
        if offset + size + 5 > len(content):
            raise _Cut("a block lies beyond its end")
        block = content[offset : offset + size]
        after = content[offset + size : offset + size + 5]  # how it is packed, and the checksum of both
        if _masked(self._crc.extend(self._crc.value(block), after[:1])) != int.from_bytes(after[1:], "little"):
            raise _Cut(f"the block at byte {offset} does not match its checksum")
        if after[0] == 1:
            length, _ = _varint(block, 0)
            block = pa.decompress(block, decompressed_size=length, codec="snappy", asbytes=True)
        elif after[0]:
            raise _Cut(f"a block is packed in an unknown way ({after[0]})")
        with self._lock:
            self._blocks[number, offset] = block
            if len(self._blocks) > _KEPT:
                self._blocks.popitem(last=False)
        return block

    def _log(self, path: Path) -> list[Write]:
        found: list[Write] = []
        for batch in _records(path.read_bytes(), self._crc):
            sequence, count = struct.unpack_from("<QI", batch)
            at = 12
            for number in range(count):
                kind = batch[at]
                key, at = _text(batch, at + 1)
                place = None
                if kind == _PUT:
                    value, at = _text(batch, at)
                    self._logged.append(value)
                    place = _Place(-1, -1, 0, len(self._logged) - 1, 0)
                elif kind != _DELETED:
                    raise _Cut(f"it holds an unknown write ({kind})")
                found.append((key, sequence + number, place))
        return found


def _entries(block: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each entry of a block: its whole key, and where its value begins and ends."""
    end = len(block) - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + own + length > end:
            raise _Cut("an entry lies beyond its block")
        key = key[:shared] + block[at : at + own]
        at += own + length
        yield key, at - length, at
    if at != end:
        raise _Cut("a block ends within an entry")


def _masked(crc: int) -> int:
    """How LevelDB stores a CRC-32C, so that the checksum of bytes that hold checksums stays a good one."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _between(last: bytes, bound: bytes) -> str:
    """The keys of a block that cannot be read: after the one before it, up to what its table's index says."""
    first, end = (key.decode("utf-8", "backslashreplace") for key in (last, bound))
    return f"those after '{first}' up to '{end}'" if last else f"those up to '{end}'"


def _records(content: bytes, crc: Any) -> Iterator[bytes]:
    """The records of a log, put together from their parts.  crc: the package that computes CRC-32C."""
    parts, at = b"", 0
    while at < len(content):
        left = _LOG_BLOCK - at % _LOG_BLOCK
        if left < 7:
            at += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, at)
        if not checksum and not length and not kind:  # a block that was made ready and not written
            at += left
            continue
        part = content[at + 7 : at + 7 + length]
        if at + 7 + length > len(content):
            raise _Cut("it ends within a record: whoever wrote it was stopped, or it was copied too early")
        if length + 7 > left or _masked(crc.extend(crc.value(content[at + 6 : at + 7]), part)) != checksum:
            raise _Cut(f"the record at byte {at} does not match its checksum")
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
            raise _Cut(f"the record at byte {at} is a part of an unknown kind ({kind})")
        if (kind in (_FULL, _FIRST)) != (not parts):
            raise _Cut("a record has lost a part")
        parts += part
        at += 7 + length
        if kind in (_FULL, _LAST):
            yield parts
            parts = b""
    if parts:
        raise _Cut("it ends within a record: whoever wrote it was stopped, or it was copied too early")


class _Logs:
    """Which logs hold what no table holds yet: from a number on, and one before it."""

    def __init__(self) -> None:
        self.first = self.before = 0

    def __contains__(self, number: int) -> bool:
        return number >= self.first or (self.before > 0 and number == self.before)


def _manifest(edits: Iterator[bytes]) -> tuple[dict[int, int], _Logs]:
    """The size of each table that counts, by number; and the logs that count.  edits: the manifest's records."""
    tables: dict[int, int] = {}
    logs = _Logs()
    for edit in edits:
        at = 0
        while at < len(edit):
            tag, at = _varint(edit, at)
            if tag == _COMPARATOR:
                _, at = _text(edit, at)
            elif tag in (_LOG, _NEXT, _SEQUENCE, _LOG_BEFORE):
                value, at = _varint(edit, at)
                logs.first = value if tag == _LOG else logs.first
                logs.before = value if tag == _LOG_BEFORE else logs.before
            elif tag in (_POINTER, _GONE, _TABLE):
                _, at = _varint(edit, at)  # its level
                if tag == _POINTER:
                    _, at = _text(edit, at)
                    continue
                number, at = _varint(edit, at)
                if tag == _GONE:
                    tables.pop(number, None)
                    continue
                tables[number], at = _varint(edit, at)
                for _ in range(2):  # its first and last key
                    _, at = _text(edit, at)
            else:
                raise _Cut(f"it holds an unknown entry ({tag})")
    return tables, logs


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise _Cut("a number in it has no end")


def _text(content: bytes, at: int) -> tuple[bytes, int]:
    length, at = _varint(content, at)
    if at + length > len(content):
        raise _Cut("it ends within a key or a value")
    return content[at : at + length], at + length
