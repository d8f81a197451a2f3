"""Rows of Parquet and ORC files as Arrow batches, and what of them could not be read."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import orc
from pyarrow import parquet as pq

from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of

_BATCH_BYTES = 8 * 2**20
BATCH_ROWS = 4096
_PART_BYTES = 128 * 2**20
TOO_MUCH = "reading it needs more memory than one file may use"


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows from `first` on; those that could not be read have no cells but a reason."""

    first: int
    count: int
    cells: pa.RecordBatch | None
    lost: str = ""
    error: str = ""
    short: bool = False
    """Lost for want of memory: a process that has read nothing else may have enough."""


@dataclass(frozen=True, slots=True)
class Table:
    """An open file.  groups: where each of its row groups ends; for ORC one, of all rows."""

    file: Any
    schema: pa.Schema
    groups: list[int]


def parquet_table(file: BinaryIO) -> Table:
    """Raises what ARROW_ERRORS lists where it is no Parquet."""
    table = pq.ParquetFile(file, pre_buffer=False, buffer_size=2**18)
    schema = table.schema_arrow
    _ = schema.names  # decodes them
    ends, end = [], 0
    for group in range(table.metadata.num_row_groups):
        end += table.metadata.row_group(group).num_rows
        ends.append(end)
    return Table(table, schema, ends)


def orc_table(file: BinaryIO) -> Table:
    """Raises what ARROW_ERRORS lists where it is no ORC."""
    table = orc.ORCFile(file)
    schema = table.schema
    _ = schema.names
    return Table(table, schema, [table.nrows])


def parquet_batches(table: pq.ParquetFile, names: list[str], start: int, rows: int) -> Iterator[Batch]:
    """The rows from `start` on, at most `rows` at once; of a damaged row group what follows the damage is lost."""
    end = 0
    for group in range(table.metadata.num_row_groups):
        row, end = end, end + table.metadata.row_group(group).num_rows
        if end <= start:
            continue
        error, short = "its pages end early", False
        try:
            # Batches begin at the same rows wherever one starts, so damage shows at the same row.
            for batch in table.iter_batches(
                _batch_rows(table.metadata.row_group(group), rows), [group], names, use_threads=False
            ):
                yield from parts(batch, row, start)
                row += batch.num_rows
        except (*ARROW_ERRORS, MemoryError) as failure:
            error, short = _damage(failure), is_short(failure)
        if row < end:
            row = max(row, start)
            yield Batch(row, end - row, None, lost_group(group, row), error, short)


def orc_batches(table: orc.ORCFile, names: list[str], start: int, rows: int) -> Iterator[Batch]:
    """The rows from `start` on, at most `rows` at once; from a damaged stripe on they are lost."""
    row = 0
    for stripe in range(table.nstripes):
        try:
            if row < start:  # its number of rows, from one column
                count = table.read_stripe(stripe, columns=names[:1]).num_rows
                if row + count <= start:
                    row += count
                    continue
            batch = table.read_stripe(stripe, columns=names)
        except (*ARROW_ERRORS, MemoryError) as failure:
            row = max(row, start)
            lost = f"stripe {stripe} cannot be read, so the rows from {row} on are lost"
            yield Batch(row, table.nrows - row, None, lost, _damage(failure), is_short(failure))
            return
        for at in range(0, batch.num_rows, rows):
            yield from parts(batch.slice(at, rows), row + at, start)
        row += batch.num_rows


def lost_group(group: int, row: int) -> str:
    """Why rows of a Parquet file are rejected."""
    return f"row group {group} cannot be read from row {row} on"


def parts(batch: pa.RecordBatch, first: int, start: int) -> Iterator[Batch]:
    """A batch from row `start` on, in parts that are no larger than what a process should be handed at once."""
    skipped = max(start - first, 0)
    if skipped >= batch.num_rows:
        return
    batch, first = batch.slice(skipped), first + skipped
    if batch.nbytes <= _PART_BYTES:
        yield Batch(first, batch.num_rows, batch)
    elif batch.num_rows > 1:  # a dictionary can make a few bytes a great many
        middle = batch.num_rows // 2
        yield from parts(batch.slice(0, middle), first, 0)
        yield from parts(batch.slice(middle), first + middle, 0)
    else:
        yield Batch(first, 1, None, f"row {first} is larger than {_PART_BYTES} bytes", "")


def is_short(failure: Exception) -> bool:
    """Whether memory was wanting; zlib says so in words of its own."""
    return isinstance(failure, MemoryError) or (isinstance(failure, zlib.error) and str(failure).startswith("Error -4"))


def _damage(failure: Exception) -> str:
    return TOO_MUCH if isinstance(failure, MemoryError) else damage_of(failure)


def _batch_rows(group: pq.RowGroupMetaData, most: int) -> int:
    """So many rows that a batch holds about 8 MiB.  A column's own size is not asked for: where its statistics are
    damaged, pyarrow ends the process."""
    return int(max(1, min(most, _BATCH_BYTES * max(1, group.num_rows) // max(1, group.total_byte_size))))
