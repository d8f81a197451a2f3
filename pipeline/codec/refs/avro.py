"""Avro container files as Arrow batches.  Runs in the process of ref_child.py, with its limits.

The frame of the file is read here, so that a block is skipped without being unpacked, a damaged one costs its own rows,
and what a block unpacks to has a greatest size; fastavro reads the records.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import fastavro
import pyarrow as pa

from pipeline.amounts import counted
from pipeline.codec.refs.arrow_batches import TOO_MUCH, Batch, Table, is_short, parts
from pipeline.codec.refs.packed import open_zstd
from pipeline.codec.refs.rows import UNREADABLE

MAGIC = b"Obj\x01"
MAX_BLOCK = 256 * 2**20
"""Bytes of one block, packed or not."""
_MAX_HEADER = 16 * 2**20
_SYNC = 16
_SCAN = 2**16
_MAX_ROWS = 2**40
_OTHER = pa.struct([])
"""The type of what can hold neither ids nor URLs nor images."""


class AvroDamaged(pa.ArrowInvalid):  # type: ignore[misc]  # pyarrow has no types
    """The file is no Avro, in words for a person: an error like those of the other formats' readers."""


@dataclass(frozen=True, slots=True)
class AvroFile:
    """An open file: where its blocks begin, and how they are read."""

    file: BinaryIO
    schema: Any
    columns: pa.Schema
    codec: str
    sync: bytes
    start: int


def avro_table(file: BinaryIO) -> Table:
    """Raises AvroDamaged where it is no Avro.  How many rows it has is not known before they are read."""
    reader = _Reader(file)
    if reader.exactly(len(MAGIC)) != MAGIC:
        raise AvroDamaged("its first bytes are not those of an Avro file")
    meta: dict[str, bytes] = {}
    total = 0
    while count := reader.long():
        if count < 0:
            count, _ = -count, reader.long()
        for _ in range(count):
            key = reader.exactly(_size(reader.long(), _MAX_HEADER)).decode("utf-8", "replace")
            meta[key] = reader.exactly(_size(reader.long(), _MAX_HEADER))
            total += len(key) + len(meta[key]) + 2
            if total > _MAX_HEADER:
                raise AvroDamaged(f"its header is longer than {_MAX_HEADER} bytes")
    sync = reader.exactly(_SYNC)
    codec = meta.get("avro.codec", b"null").decode("utf-8", "replace") or "null"
    if codec not in _UNPACK:
        raise AvroDamaged(f"its blocks are compressed by {codec!r}; Hathi reads {', '.join(_UNPACK)}")
    try:
        schema: Any = fastavro.parse_schema(json.loads(meta["avro.schema"]))
    except Exception as error:  # a hostile schema raises whatever it likes
        raise AvroDamaged(f"its schema cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise AvroDamaged("its schema is not a record")
    try:
        columns = pa.schema([(field["name"], _arrow_type(field["type"])) for field in schema["fields"]])
    except RecursionError as error:
        raise AvroDamaged("its schema is nested too deeply") from error
    return Table(AvroFile(file, schema, columns, codec, sync, reader.at), columns, [])


def avro_batches(table: AvroFile, names: list[str], start: int, rows: int) -> Iterator[Batch]:
    """The rows from `start` on, at most `rows` at once.

    A record that cannot be read costs the rest of its block; where the frame itself is damaged, what lies before the
    next block counts as one row.
    """
    reader = _Reader(table.file, table.start)
    row = 0
    while reader.more():
        began = reader.at
        try:
            count, packed = _block(reader, table.sync)
        except AvroDamaged as damage:
            if row >= start:
                yield Batch(
                    row,
                    1,
                    None,
                    f"the block at byte {began} {UNREADABLE}",
                    str(damage),
                )
            row += 1
            if not reader.find(table.sync, began):
                return
            continue
        if row + count > start:
            yield from _rows_of(table, packed, count, names, row, max(start, row), rows)
        row += count


def _block(reader: _Reader, sync: bytes) -> tuple[int, bytes]:
    count, size = reader.long(), reader.long()
    if not 0 <= count <= _MAX_ROWS:
        raise AvroDamaged(f"a block claims {counted(count, 'row')}")
    packed = reader.exactly(_size(size, MAX_BLOCK))
    if reader.exactly(_SYNC) != sync:
        raise AvroDamaged("the sync marker after the block is wrong")
    return count, packed


def _rows_of(
    table: AvroFile, packed: bytes, count: int, names: list[str], row: int, start: int, rows: int
) -> Iterator[Batch]:
    """A block's rows from `start` on; row: the number of its first one."""
    records: list[dict[str, Any]] = []
    done, error, short = 0, "", False
    try:
        unpacked = _UNPACK[table.codec](packed)
        if count > len(unpacked):
            raise AvroDamaged("the block claims more rows than it has bytes")
        stream = io.BytesIO(unpacked)
    except Exception as failure:  # whatever a codec raises for what is no data of its own
        yield Batch(start, row + count - start, None, _lost(start), _words(failure), is_short(failure))
        return
    first = start
    while done < count:
        try:
            record = fastavro.schemaless_reader(stream, table.schema, None, handle_unicode_errors="surrogateescape")
        except Exception as failure:  # hostile bytes make it raise whatever they like
            error, short = _words(failure), is_short(failure)
            break
        done += 1
        if row + done > start:
            records.append(record)
        if len(records) == rows:
            yield from _told(records, names, table.columns, first)
            first += len(records)
            records = []
    if records:
        yield from _told(records, names, table.columns, first)
    if done < count:
        at = max(start, row + done)
        yield Batch(at, row + count - at, None, _lost(at), error, short)


def _told(records: list[dict[str, Any]], names: list[str], columns: pa.Schema, first: int) -> Iterator[Batch]:
    """The records as rows; one that fits no column costs itself, wherever reading began.  first: its row's number."""
    try:
        batch = _batch(records, names, columns)
    except Exception as failure:  # a number, a time or a text beyond what the column's type can hold
        if len(records) == 1:
            why = f"row {first} does not fit its columns"
            yield Batch(first, 1, None, why, _words(failure), is_short(failure))
            return
        for number, record in enumerate(records):
            yield from _told([record], names, columns, first + number)
        return
    yield from parts(batch, first, first)


def _lost(row: int) -> str:
    return f"the rows from {row} on cannot be read in their block"


def _words(failure: Exception) -> str:
    if is_short(failure):
        return TOO_MUCH
    return f"{type(failure).__name__}: {failure}" if str(failure) else type(failure).__name__


def _batch(records: list[dict[str, Any]], names: list[str], columns: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for name in names:
        kind = columns.field(name).type
        cells = [record[name] for record in records]
        if pa.types.is_string(kind):  # as bytes: they need not be UTF-8
            texts = (None if cell is None else str(cell).encode("utf-8", "surrogateescape") for cell in cells)
            arrays.append(pa.array(list(texts), pa.binary()))
        else:
            arrays.append(pa.array(cells, kind))
    return pa.RecordBatch.from_arrays(arrays, names)


def _arrow_type(kind: Any) -> pa.DataType:
    """What a field holds, in Arrow's words; types that hold no cell are all one."""
    if isinstance(kind, list):
        held = [_arrow_type(one) for one in kind if one != "null"]
        if len(held) < 2:
            return held[0] if held else pa.null()
        if all(one in (pa.int64(), pa.string()) for one in held):
            return pa.string() if pa.string() in held else pa.int64()
        return _OTHER
    name = kind["type"] if isinstance(kind, dict) else kind
    logical = kind.get("logicalType") if isinstance(kind, dict) else None
    if isinstance(name, (dict, list)):
        return _arrow_type(name)
    if logical == "decimal":
        return pa.decimal128(38, 0) if not kind.get("scale") else pa.decimal128(38, min(int(kind["scale"]), 38))
    if logical and logical not in ("uuid",):
        return pa.timestamp("us")  # dates, times and durations: no id
    return _TYPES.get(name, _OTHER)


_TYPES = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int64(),
    "long": pa.int64(),
    "float": pa.float64(),
    "double": pa.float64(),
    "string": pa.string(),
    "enum": pa.string(),
    "bytes": pa.binary(),
    "fixed": pa.binary(),
}


class _Reader:
    """The file's bytes one after the other."""

    def __init__(self, file: BinaryIO, at: int = 0) -> None:
        self._file = file
        self._buffer = b""
        self._place = 0
        self.at = at
        """The offset of the next byte."""
        file.seek(at)

    def more(self) -> bool:
        """Whether there is a byte left."""
        return self._fill(1)

    def exactly(self, size: int) -> bytes:
        """So many bytes.  Raises AvroDamaged at the file's end."""
        if not self._fill(size):
            raise AvroDamaged("the file ends too early")
        found = self._buffer[self._place : self._place + size]
        self._place += size
        self.at += size
        return found

    def long(self) -> int:
        """A number as Avro writes it."""
        value = shift = 0
        while True:
            byte = self.exactly(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
            if shift > 63:
                raise AvroDamaged("a number of more than 64 bits")

    def find(self, mark: bytes, at: int) -> bool:
        """Go behind the next mark from an offset on; False where there is none."""
        self._file.seek(at)
        self._buffer, self._place, self.at = b"", 0, at
        while True:
            found = self._buffer.find(mark)
            if found >= 0:
                self._place = found + len(mark)
                self.at += self._place
                return True
            kept = self._buffer[-len(mark) + 1 :]
            more = self._file.read(_SCAN)
            if not more:
                return False
            self.at += len(self._buffer) - len(kept)
            self._buffer = kept + more

    def _fill(self, size: int) -> bool:
        held = len(self._buffer) - self._place
        if held >= size:
            return True
        pieces = [self._buffer[self._place :]]
        while held < size:
            more = self._file.read(max(size - held, _SCAN))
            if not more:
                break
            pieces.append(more)
            held += len(more)
        self._buffer, self._place = b"".join(pieces), 0
        return held >= size


def _size(size: int, most: int) -> int:
    if not 0 <= size <= most:
        raise AvroDamaged(f"a part of {size} bytes")
    return size


def _bounded(out: bytes, *, ended: bool) -> bytes:
    if not ended:
        raise AvroDamaged(f"a block of more than {MAX_BLOCK} bytes, or one that is cut off")
    return out


def _inflated(packed: bytes) -> bytes:
    unpack = zlib.decompressobj(-15)
    return _bounded(unpack.decompress(packed, MAX_BLOCK), ended=unpack.eof)


def _by(open_stream: Callable[[], Any]) -> Callable[[bytes], bytes]:
    def unpacked(packed: bytes) -> bytes:
        unpack = open_stream()
        return _bounded(unpack.decompress(packed, MAX_BLOCK), ended=unpack.eof)

    return unpacked


def _from_snappy(packed: bytes) -> bytes:
    """Snappy's own form, and a CRC-32 behind it."""
    if len(packed) < 5:
        raise AvroDamaged("a block that is cut off")
    size, shift = 0, 0
    for byte in packed[:5]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    out: bytes = pa.Codec("snappy").decompress(packed[:-4], _size(size, MAX_BLOCK), asbytes=True)
    if zlib.crc32(out) != int.from_bytes(packed[-4:], "big"):
        raise AvroDamaged("a block whose checksum is another")
    return out


_UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "null": lambda packed: packed,
    "deflate": _inflated,
    "snappy": _from_snappy,
    "zstandard": _by(open_zstd),
    "bzip2": _by(bz2.BZ2Decompressor),
    "xz": _by(lambda: lzma.LZMADecompressor(memlimit=256 * 2**20)),
}
"""By the codec that the header names."""
