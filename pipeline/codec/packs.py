"""Packs: images one after the other in one file, and an index that says of each whose it is and where it lies.

The index is a Parquet file that only this project reads.  Equal images of a pack lie there once, with a row for each
ref that has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet as pq

from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.codec.hashed_file import HashedFile, Written
from pipeline.errors import FormatError
from pipeline.records import signed, unsigned

_SCHEMA = pa.schema(
    [
        pa.field("partner_id", pa.int64(), nullable=False),
        pa.field("item_id", pa.int64(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("sha256", pa.binary(32), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("fetched_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("etag", pa.string()),
        pa.field("last_modified", pa.string()),
        pa.field("resource", pa.binary(32)),
    ]
)


@dataclass(frozen=True, slots=True)
class PackRow:
    """One ref whose image lies in a pack.  url: complete; offset, length: bytes of the pack."""

    partner_id: int
    item_id: int
    """Unsigned."""
    url: str
    sha256: bytes
    offset: int
    length: int
    kind: str
    """The image's format, by its first bytes: jpeg, png ..."""
    fetched_at: datetime
    """UTC; kept to the microsecond."""
    etag: str | None = None
    last_modified: str | None = None
    resource: bytes | None = None
    """SHA-256 of the URL after all redirects; None: not known."""


def write_index(path: Path, rows: Sequence[PackRow]) -> Written:
    """Writes a new index, its rows as they come."""
    columns = list(zip(*map(astuple, rows), strict=True)) or [()] * len(_SCHEMA)
    columns[1] = tuple(map(signed, columns[1]))
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    file = HashedFile(path)
    try:
        with pq.ParquetWriter(file, _SCHEMA, compression="zstd", write_statistics=False) as writer:
            writer.write_table(pa.table(arrays, schema=_SCHEMA))
    finally:
        file.close()
    return file.written(len(rows))


def read_index(content: bytes, where: str) -> list[PackRow]:
    """All rows of an index.  Raises FormatError, naming `where`, for what is none."""
    try:
        with pq.ParquetFile(pa.BufferReader(content), pre_buffer=False) as file:
            table = file.read(use_threads=False)
    except ARROW_ERRORS as error:
        raise _damaged(where, damage_of(error)) from error
    if not table.schema.equals(_SCHEMA):
        raise _damaged(where, "its columns are others")
    columns = [table.column(name).to_pylist() for name in _SCHEMA.names]
    columns[1] = [unsigned(item) for item in columns[1]]
    rows = [PackRow(*cells) for cells in zip(*columns, strict=True)]
    if any(row.offset < 0 or row.length < 0 for row in rows):
        raise _damaged(where, "an image lies before the beginning of its pack")
    return rows


def _damaged(where: str, detail: str) -> FormatError:
    return FormatError(f"{where} is not the index of a pack", detail, "see what else is damaged: hathi verify --deep")
