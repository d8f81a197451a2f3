"""Ref files in columns and Avro: by pyarrow and fastavro in a process of its own, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
from pyarrow import types

from pipeline.amounts import counted
from pipeline.codec.refs.arrow_batches import Batch
from pipeline.codec.refs.columns import Found, find_columns
from pipeline.codec.refs.rows import Block, Cursor, Rejected, sample_of
from pipeline.codec.refs.rules import Cell, RawRows, Rules, judge
from pipeline.codec.refs.sandbox import ApartFile, Damaged
from pipeline.errors import FormatError
from pipeline.settings import Columns


def arrow_blocks(
    table: ApartFile, name: str, columns: Columns, rules: Rules, at: Cursor, keep: Sequence[str] = ()
) -> Iterator[Block]:
    """The rows from a cursor on.  name: the file's, for messages.  keep: further columns, which stay as Arrow has them.

    A Parquet file's row group or an Avro file's block that is damaged is rejected from the damage on, the others stand;
    an ORC file from the damaged stripe on.  Raises FormatError when it is called for columns that are missing.
    """
    try:
        found = _find(table.schema, columns, name).keeping(table.schema.names, keep)
    except FormatError:
        table.close()
        raise
    return _blocks(table.batches(_names(table.schema, found), at.position), table.schema, found, rules)


def arrow_names(file: BinaryIO, format: str, name: str) -> list[str]:
    """The names of all columns.  Raises FormatError when the file cannot be opened."""
    table = opened(file, format, name)
    table.close()
    return list(table.schema.names)


def opened(file: BinaryIO, format: str, name: str) -> ApartFile:
    try:
        return ApartFile(file, format)
    except Damaged as error:
        what = {"parquet": "Parquet", "orc": "ORC", "avro": "Avro"}[format]
        hint = "check that the file is whole and has this format"
        raise FormatError(f"{name} cannot be read as {what}", sample_of(str(error)), hint) from error


def _blocks(batches: Iterator[Batch], schema: pa.Schema, found: Found, rules: Rules) -> Iterator[Block]:
    for batch in batches:
        end = Cursor(batch.first + batch.count, batch.first + batch.count)
        if batch.cells is None:
            rejected = Rejected(
                batch.first, None, f"{batch.lost} ({counted(batch.count, 'row')})", sample_of(batch.error)
            )
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

    def kept(place: int) -> pa.Array:
        array = batch.column(batch.schema.names.index(schema.names[place]))
        return array.dictionary_decode() if types.is_dictionary(array.type) else array

    numbers = range(first, first + batch.num_rows)
    return found.raw_rows(numbers, numbers, column, kept)


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
    found = find_columns(schema.names, columns, name, lambda place: _is_content(schema.field(place).type))
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
    places = (found.partner_id, found.item_id, found.external_id, found.url, found.content, *found.kept)
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
