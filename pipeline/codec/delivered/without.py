"""Delivered files without the rows of some items: what is left of them keeps its bytes as numbers, order and columns.

Parquet is read and written a row group at a time; text, line by line.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet as pq

from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.codec.delivered.forms import text_form_of
from pipeline.codec.delivered.parquet import SHIPMENT
from pipeline.codec.delivered.parquet_parts import Parts
from pipeline.codec.hashed_file import HashedFile, Written
from pipeline.codec.shards import REUSED
from pipeline.errors import FormatError
from pipeline.records import signed, unsigned

_REPEATED = ("version", "fingerprint", SHIPMENT, "reason", "detail", REUSED)
"""Columns with few different values, as who writes delivered files has them."""


@dataclass(frozen=True)
class Gone:
    """Whose rows go, of one partner's files.  items: unsigned; None: all.  spared: shipments whose rows stay."""

    items: frozenset[int] | None
    spared: frozenset[str] = frozenset()

    def rows(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows of a table go: by its columns item_id and, where it has one, shipment."""
        if self.items is None:
            go = np.ones(len(table), np.bool_)
        else:
            wanted = pa.array([signed(item) for item in sorted(self.items)], pa.int64())
            go = pc.is_in(table.column("item_id"), value_set=wanted).to_numpy(zero_copy_only=False)
        if self.spared and SHIPMENT in table.schema.names:
            stays = pc.is_in(table.column(SHIPMENT), value_set=pa.array(sorted(self.spared), pa.string()))
            go = go & ~stays.to_numpy(zero_copy_only=False)
        return np.asarray(go, np.bool_)


@dataclass
class Left:
    """What is left of a file.  written: None where no row is; items: unsigned, of the rows that went."""

    written: Written | None = None
    gone: int = 0
    items: set[int] = field(default_factory=set)
    fingerprints: Counter[str] = field(default_factory=Counter)
    """Rows that stay, by fingerprint."""
    reused: Counter[str] = field(default_factory=Counter)
    """Rows that went and were of features that were used again, by how that was known."""


def holds(name: str, stream: BinaryIO, gone: Gone) -> bool:
    """Whether a file has a row that goes.  Raises FormatError, which names it, for a damaged one."""
    if name.endswith(".parquet"):
        return any(gone.rows(table).any() for table in _groups(name, stream, keys=True))
    return any(_goes(name, line, gone.items) for line in _lines(name, stream))


def without(name: str, stream: BinaryIO, path: Path, gone: Gone) -> Left:
    """Write what stays of a file to a new local one; where nothing stays there is none.  Raises FormatError."""
    return _table_without(name, stream, path, gone) if name.endswith(".parquet") else _text(name, stream, path, gone)


def _table_without(name: str, stream: BinaryIO, path: Path, gone: Gone) -> Left:
    left = Left()
    parts: Parts | None = None
    folder = path.with_name(f"{path.name}.parts")
    try:
        for table in _groups(name, stream, keys=False):
            go = gone.rows(table)
            left.gone += int(go.sum())
            items = table.column("item_id").to_pylist() if go.any() else []
            left.items |= {unsigned(item) for item, goes in zip(items, go, strict=False) if goes}
            if REUSED in table.schema.names:
                marks = table.column(REUSED).filter(pa.array(go)).to_pylist()
                left.reused.update(mark for mark in marks if mark is not None)
            stays = table.filter(pa.array(~go))
            if not len(stays):
                continue
            if "fingerprint" in stays.schema.names:
                left.fingerprints.update(stays.column("fingerprint").to_pylist())
            if parts is None:
                repeated = [column for column in _REPEATED if column in stays.schema.names]
                parts = Parts(folder, stays.schema.remove_metadata(), repeated, part_bytes=2**62)
            parts.write({column: stays.column(column).combine_chunks() for column in stays.schema.names})
    except BaseException:
        if parts is not None:
            parts.abandon()
        raise
    if parts is not None:
        ((made, left.written),) = parts.close()
        made.rename(path)
        folder.rmdir()
    return left


def _text(name: str, stream: BinaryIO, path: Path, gone: Gone) -> Left:
    left, rows = Left(), 0
    word = text_form_of(name).item_word
    file = HashedFile(path)
    with closing(file), gzip.GzipFile("", "wb", 9, file, 0) as packed:
        for line in _lines(name, stream):
            if _goes(name, line, gone.items):
                left.gone += 1
                left.items.add(int(line.split()[word]))
            else:
                packed.write(line)
                rows += 1
    if rows:
        left.written = file.written(rows)
    else:
        path.unlink()
    return left


def _groups(name: str, stream: BinaryIO, *, keys: bool) -> Iterator[pa.Table]:
    """The row groups of a file.  keys: only what says whose a row is."""
    try:
        file = pq.ParquetFile(stream)
        columns = [one for one in ("item_id", SHIPMENT) if one in file.schema_arrow.names] if keys else None
        for group in range(file.metadata.num_row_groups):
            yield file.read_row_group(group, columns=columns, use_threads=False)
    except ARROW_ERRORS as error:
        raise _damaged(name, damage_of(error)) from error


def _lines(name: str, stream: BinaryIO) -> Iterator[bytes]:
    try:
        with gzip.open(stream) as lines:
            yield from lines
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(name, str(error)) from error


def _goes(name: str, line: bytes, items: frozenset[int] | None) -> bool:
    if items is None:
        return True
    try:
        return int(line.split(maxsplit=2)[text_form_of(name).item_word]) in items
    except (ValueError, IndexError) as error:
        raise _damaged(name, "a line has no item") from error


def _damaged(name: str, why: str) -> FormatError:
    return FormatError("a delivered file cannot be read", f"{name}: {why}", "hathi verify --deep names what is damaged")
