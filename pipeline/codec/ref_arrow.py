"""Ref files in columns: Parquet and ORC, by pyarrow, a batch of rows or a stripe at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
from pyarrow import orc, types
from pyarrow import parquet as pq

from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.codec.ref_columns import Found, find_columns
from pipeline.codec.ref_rows import Block, Cursor, Rejected, sample_of
from pipeline.codec.ref_rules import Cell, RawRows, Rules, judge
from pipeline.errors import FormatError
from pipeline.settings import Columns

_BATCH_BYTES = 8 * 2**20
_BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows from `first` on; those that could not be read have no cells but a reason."""

    first: int
    count: int
    cells: pa.RecordBatch | None
    lost: str = ""
    error: str = ""


def parquet_blocks(file: BinaryIO, name: str, columns: Columns, rules: Rules, at: Cursor) -> Iterator[Block]:
    """The rows from a cursor on; a row group that is damaged is rejected from the damage on, the others stand.

    Raises FormatError when it is called if the file cannot be opened as Parquet.
    """
    try:
        table = pq.ParquetFile(file, pre_buffer=False, buffer_size=2**18)
        schema = table.schema_arrow
    except ARROW_ERRORS as error:
        raise _unreadable(name, "Parquet", error) from error
    found = _find(schema, columns, name)
    return _blocks(_parquet_batches(table, _names(schema, found), at.position), schema, found, rules)


def orc_blocks(file: BinaryIO, name: str, columns: Columns, rules: Rules, at: Cursor) -> Iterator[Block]:
    """The rows from a cursor on; from a damaged stripe on they are rejected.

    Raises FormatError when it is called if the file cannot be opened as ORC.
    """
    try:
        table = orc.ORCFile(file)
        schema = table.schema
    except ARROW_ERRORS as error:
        raise _unreadable(name, "ORC", error) from error
    found = _find(schema, columns, name)
    return _blocks(_orc_batches(table, _names(schema, found), at.position), schema, found, rules)


def _parquet_batches(table: pq.ParquetFile, names: list[str], start: int) -> Iterator[_Batch]:
    end = 0
    for group in range(table.metadata.num_row_groups):
        row, end = end, end + table.metadata.row_group(group).num_rows
        if end <= start:
            continue
        error = "its pages end early"
        try:
            # Batches begin at the same rows wherever one starts, so damage shows at the same row.
            for batch in table.iter_batches(
                _batch_rows(table.metadata.row_group(group), names), [group], names, use_threads=False
            ):
                skipped = max(start - row, 0)
                if skipped < batch.num_rows:
                    yield _Batch(row + skipped, batch.num_rows - skipped, batch.slice(skipped))
                row += batch.num_rows
        except ARROW_ERRORS as failure:
            error = damage_of(failure)
        if row < end:
            row = max(row, start)
            yield _Batch(row, end - row, None, f"row group {group} cannot be read from row {row} on", error)


def _orc_batches(table: orc.ORCFile, names: list[str], start: int) -> Iterator[_Batch]:
    row = 0
    for stripe in range(table.nstripes):
        try:
            if row < start:  # its number of rows, from one column
                count = table.read_stripe(stripe, columns=names[:1]).num_rows
                if row + count <= start:
                    row += count
                    continue
            batch = table.read_stripe(stripe, columns=names)
        except ARROW_ERRORS as failure:
            row = max(row, start)
            lost = f"stripe {stripe} cannot be read: nor can the rows from {row} on"
            yield _Batch(row, table.nrows - row, None, lost, damage_of(failure))
            return
        skipped = max(start - row, 0)
        for at in range(skipped, batch.num_rows, _BATCH_ROWS):
            part = batch.slice(at, _BATCH_ROWS)
            yield _Batch(row + at, part.num_rows, part)
        row += batch.num_rows


def _batch_rows(group: pq.RowGroupMetaData, names: list[str]) -> int:
    """So many rows that a batch holds about 8 MiB."""
    chunks = [group.column(at) for at in range(group.num_columns)]
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in names)
    return int(max(1, min(_BATCH_ROWS, _BATCH_BYTES * max(1, group.num_rows) // max(1, size))))


def _blocks(batches: Iterator[_Batch], schema: pa.Schema, found: Found, rules: Rules) -> Iterator[Block]:
    for batch in batches:
        end = Cursor(batch.first + batch.count, batch.first + batch.count)
        if batch.cells is None:
            rejected = Rejected(batch.first, None, f"{batch.lost} ({batch.count} rows)", sample_of(batch.error))
            yield judge(RawRows((), ()), rules, [rejected], end)
        else:
            yield judge(_raw(batch.cells, batch.first, schema, found), rules, (), end)


def _raw(batch: pa.RecordBatch, first: int, schema: pa.Schema, found: Found) -> RawRows:
    def column(place: int) -> list[Cell]:
        array = batch.column(batch.schema.names.index(schema.names[place]))
        if place == found.content:
            return list(array.to_pylist())
        if place == found.item_id and types.is_int64(array.type):  # carries the bits of an unsigned id
            array = array.cast(pa.uint64(), safe=False)
        return _cells(array)

    numbers = range(first, first + batch.num_rows)
    return found.raw_rows(numbers, numbers, column)


def _cells(array: pa.Array) -> list[Cell]:
    kind = array.type
    if types.is_dictionary(kind):
        return _cells(array.dictionary_decode())
    if types.is_decimal(kind):
        return [None if number is None else int(number) for number in array.to_pylist()]
    if not _is_binary(kind):
        try:
            cells: list[Cell] = array.to_pylist()
            return cells
        except UnicodeDecodeError:
            array = array.cast(pa.large_binary())
    return [None if cell is None else cell.decode("utf-8", "surrogateescape") for cell in array.to_pylist()]


def _find(schema: pa.Schema, columns: Columns, name: str) -> Found:
    """The columns' places; raises FormatError where one has a type that cannot hold what it should."""
    found = find_columns(schema.names, columns, name)
    ids, texts = ("integers or text", _is_id), ("text", _is_text)
    wanted = ((found.partner_id, ids), (found.item_id, ids), (found.external_id, ids), (found.url, texts))
    for place, (what, allowed) in (*wanted, (found.content, ("bytes", _is_content))):
        if place is not None and not allowed(schema.field(place).type):
            field = schema.field(place)
            raise FormatError(
                f"{name} cannot be read as image refs",
                f"its column {sample_of(field.name)} has type {field.type}, but should hold {what}",
                "convert the column, or name another one in the source's columns",
            )
    return found


def _names(schema: pa.Schema, found: Found) -> list[str]:
    places = (found.partner_id, found.item_id, found.external_id, found.url, found.content)
    return list(dict.fromkeys(schema.names[place] for place in places if place is not None))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return bool(text or _is_binary(kind) or types.is_null(kind))


def _is_id(kind: pa.DataType) -> bool:
    whole = types.is_integer(kind) or (types.is_decimal(kind) and kind.scale == 0)
    return bool(whole or _is_text(kind) or (types.is_dictionary(kind) and types.is_integer(kind.value_type)))


def _is_content(kind: pa.DataType) -> bool:
    return bool(_is_binary(kind) or types.is_fixed_size_binary(kind) or types.is_null(kind))


def _unreadable(name: str, what: str, error: Exception) -> FormatError:
    return FormatError(
        f"{name} cannot be read as {what}", sample_of(damage_of(error)), "is it whole, and is that its format?"
    )
