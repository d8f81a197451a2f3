"""Shards: what computing a batch yields, as two Parquet files that only this project reads.

Rows are sorted by (partner, item as unsigned, ordinal) and lie in row groups of 64, so that a merge of many shards
holds little of each. The same rows give the same bytes.

A feature is a vector of `dim` values.  A set that keeps images has dim 0: its rows hold the image instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet as pq

from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.codec.hashed_file import HashedFile, Written
from pipeline.errors import FormatError, TemporaryError
from pipeline.records import signed, unsigned

GROUP_ROWS = 64
GROUP_CONTENT_BYTES = 2**20
"""Images that a row group holds, at the most; at least one row."""
FEATURES, IMAGE = "features", "image"
"""The column of what was computed: vectors, or images where dim is 0."""

_LOOK = "see what else is damaged, and what to do: hathi verify --deep"
DAMAGE = "damage"
"""A column that stands in a shard only where one of its features is of a damaged image."""
REUSED = "reused"
"""A column that stands in a shard only where one of its features was computed before."""
_MARKS = (DAMAGE, REUSED)
Reused = Literal["not_modified", "equal_bytes"]
"""How a feature came to be used again: the host said that its image did not change, or sent the same bytes."""

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """One computed feature, without its vector."""

    partner_id: int
    item_id: int
    """Unsigned."""
    ordinal: int
    """Within the shipment."""
    external_id: str
    url: str
    content_sha256: bytes
    fetched_at: datetime
    """UTC; kept to the microsecond."""
    etag: str | None = None
    last_modified: str | None = None
    damage: str | None = None
    """What the decoder said was wrong with the image: the feature is of what could be seen."""
    reused: Reused | None = None
    """That it was computed before, and how that is known."""
    image: bytes | memoryview | None = None
    """The image itself, of a set that keeps images."""
    resource: bytes = b""
    """SHA-256 of the URL after all redirects, where it was fetched; not kept in a shard."""


@dataclass(frozen=True, slots=True)
class FailureRow:
    """One item without a feature."""

    partner_id: int
    item_id: int
    """Unsigned."""
    ordinal: int
    """Within the shipment."""
    external_id: str
    url: str
    """Complete: nothing is redacted here."""
    reason: str
    retriable: bool
    detail: str
    content: bytes | None = None
    """Of a retriable failure whose image travels inline."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The columns of a shard that decide which rows win."""

    partner_id: npt.NDArray[np.int64]
    item_id: npt.NDArray[np.uint64]
    ordinal: npt.NDArray[np.int64]
    retriable: npt.NDArray[np.bool_]
    """All false for features."""


def features_schema(dim: int) -> pa.Schema:
    """The columns of a features shard whose vectors have that many values."""
    return pa.schema(
        [
            _needed("partner_id", pa.int64()),
            _needed("item_id", pa.int64()),
            _needed("ordinal", pa.int64()),
            _needed("external_id", pa.string()),
            _needed("url", pa.string()),
            _needed("content_sha256", pa.binary(32)),
            _needed("fetched_at", pa.timestamp("us", tz="UTC")),
            pa.field("etag", pa.string()),
            pa.field("last_modified", pa.string()),
            computed(dim),
        ]
    )


def failures_schema() -> pa.Schema:
    """The columns of a failures shard."""
    return pa.schema(
        [
            _needed("partner_id", pa.int64()),
            _needed("item_id", pa.int64()),
            _needed("ordinal", pa.int64()),
            _needed("external_id", pa.string()),
            _needed("url", pa.string()),
            _needed("reason", pa.string()),
            _needed("retriable", pa.bool_()),
            _needed("detail", pa.string()),
            pa.field("content", pa.binary()),
        ]
    )


def computed(dim: int) -> pa.Field:
    """The column of features of that many values; of images where that is 0."""
    return _needed(FEATURES, vectors(dim)) if dim else _needed(IMAGE, pa.binary())


def vectors(dim: int) -> pa.DataType:
    """The type of a feature column."""
    return pa.list_(pa.field("element", pa.float32(), nullable=False), dim)


def vector_array(matrix: Matrix) -> pa.Array:
    """The rows of a matrix (n, dim), as a column; no value is copied."""
    flat = pa.array(np.ascontiguousarray(matrix, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=vectors(matrix.shape[1]))


def write_features(path: Path, rows: Sequence[FeatureRow], matrix: Matrix) -> Written:
    """Writes a new shard of features; row n of the matrix (n, dim) belongs to rows[n], in any order.

    Of a matrix (n, 0) the rows hold their images.
    """
    order = _order(rows)
    dim = matrix.shape[1]
    schema = features_schema(dim)
    for mark in _MARKS:
        if any(getattr(row, mark) for row in rows):
            schema = schema.insert(len(schema) - 1, pa.field(mark, pa.string()))
    if not dim:
        sizes = _group_sizes([len(rows[at].image or b"") for at in order])
        return _write(path, schema, _groups(rows, order, sizes, schema))
    columns = [*_columns(rows, order, schema.names[:-1], schema), vector_array(matrix[order])]
    table = pa.table(columns, schema=schema)
    return _write(path, schema, _slices(table, [GROUP_ROWS] * -(-len(rows) // GROUP_ROWS)))


def write_failures(path: Path, rows: Sequence[FailureRow]) -> Written:
    """Writes a new shard of failures, from rows in any order."""
    order = _order(rows)
    schema = failures_schema()
    sizes = _group_sizes([len(rows[at].content or b"") for at in order])
    return _write(path, schema, _groups(rows, order, sizes, schema))


class Shard:
    """A shard of features or failures being read, by row groups; its file is open only while a group is read."""

    def __init__(self, path: Path) -> None:
        """Raises FormatError where the file is no Parquet."""
        self._path = path
        try:
            metadata = pq.read_metadata(path)  # not kept: it holds more memory than a row group, for each shard
        except ARROW_ERRORS as error:
            raise self._damaged(error) from error
        counts = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        self.starts = list(accumulate(counts, initial=0))
        """The first row of each row group, and the number of all rows."""
        try:
            schema = metadata.schema.to_arrow_schema()
            self.holds_features = FEATURES in schema.names or IMAGE in schema.names
        except ARROW_ERRORS as error:
            raise self._damaged(error) from error
        self._check(schema)

    def _check(self, schema: pa.Schema) -> None:
        """Raises FormatError where a column is missing, stands twice or has another type."""
        dim = getattr(schema.field(FEATURES).type, "list_size", 1) if FEATURES in schema.names else 0
        self._dim = dim
        wanted = features_schema(dim) if self.holds_features else failures_schema()
        self._marks = [mark for mark in _MARKS if mark in schema.names]
        for field in (*wanted, *(pa.field(mark, pa.string()) for mark in self._marks)):
            if [schema.field(at).type for at in schema.get_all_field_indices(field.name)] != [field.type]:
                raise FormatError("a shard is damaged", f"{self._path.name}: its column {field.name} is wrong", _LOOK)

    def keys(self) -> Keys:
        """The keys of all rows."""
        names = ["partner_id", "item_id", "ordinal"]
        wanted = names if self.holds_features else [*names, "retriable"]
        groups = range(len(self.starts) - 1)
        if not groups:
            return Keys(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.bool_))
        table = self._read(groups, wanted)
        partner_id, item_id, ordinal = (table.column(name).to_numpy() for name in names)
        retriable = np.zeros(len(table)) if self.holds_features else table.column("retriable").to_numpy()
        return Keys(partner_id, item_id.view(np.uint64), ordinal, retriable.astype(np.bool_))

    def external_ids(self, group: int) -> list[str]:
        """The external ids of a row group."""
        names: list[str] = self._read([group], ["external_id"]).column(0).to_pylist()
        return names

    def features(self, group: int, dim: int) -> tuple[list[FeatureRow], Matrix]:
        """A row group of features: rows, and a matrix (rows, dim) that is not to be written to."""
        if self._dim != dim:
            raise FormatError("a shard has another width", f"{self._path.name}: not {dim} values a row")
        table = self._read([group], features_schema(dim).names + self._marks)
        if not dim:
            return self._images(table), np.empty((len(table), 0), np.float32)
        vectors_column = table.column(FEATURES).combine_chunks()
        matrix = vectors_column.flatten().to_numpy().reshape(-1, dim)
        return self._feature_rows(table.drop_columns([FEATURES])), matrix

    def _feature_rows(self, table: pa.Table) -> list[FeatureRow]:
        rows = [FeatureRow(*cells) for cells in _cells(table.drop_columns(self._marks))]
        if not self._marks:
            return rows
        marks = zip(*(table.column(mark).to_pylist() for mark in self._marks), strict=True)
        return [
            replace(row, **dict(zip(self._marks, some, strict=True))) for row, some in zip(rows, marks, strict=True)
        ]

    def _images(self, table: pa.Table) -> list[FeatureRow]:
        images = table.column(IMAGE).to_pylist()
        rows = self._feature_rows(table.drop_columns([IMAGE]))
        return [replace(row, image=image) for row, image in zip(rows, images, strict=True)]

    def failures(self, group: int) -> list[FailureRow]:
        """A row group of failures."""
        return [FailureRow(*cells) for cells in _cells(self._read([group], failures_schema().names))]

    def as_failures(self, group: int, reason: str, detail: str) -> list[FailureRow]:
        """A row group of features as failures that are not retriable; their vectors are not read."""
        names = ["partner_id", "item_id", "ordinal", "external_id", "url"]
        return [
            FailureRow(partner_id, item_id, ordinal, external_id, url, reason, False, detail)
            for partner_id, item_id, ordinal, external_id, url in _cells(self._read([group], names))
        ]

    def _read(self, groups: Sequence[int], columns: list[str]) -> pa.Table:
        try:
            with pq.ParquetFile(self._path, pre_buffer=False) as file:
                return file.read_row_groups(list(groups), columns=columns, use_threads=False)
        except ARROW_ERRORS as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> FormatError:
        if isinstance(error, MemoryError):  # a damaged length, or a machine that is short of it: nobody can tell
            hint = "give this process more memory, or check the file with hathi verify --deep"
            raise TemporaryError(
                "not enough memory to read a shard", f"{self._path.name}: {error}", hint, 60.0
            ) from error
        detail = f"{self._path.name}: {damage_of(error)}"
        return FormatError("a shard is damaged", detail, _LOOK)


def _cells(table: pa.Table) -> Any:
    """The cells of each row, ids unsigned."""
    columns = [table.column(name).to_pylist() for name in table.schema.names]
    columns[1] = map(unsigned, columns[1])
    return zip(*columns, strict=True)


def _order(rows: Sequence[FeatureRow] | Sequence[FailureRow]) -> list[int]:
    keys = [(row.partner_id, row.item_id, row.ordinal) for row in rows]
    return sorted(range(len(rows)), key=keys.__getitem__)


def _columns(
    rows: Sequence[FeatureRow] | Sequence[FailureRow], order: list[int], names: list[str], schema: pa.Schema
) -> list[pa.Array]:
    columns = []
    for name in names:
        cells: list[Any] = [getattr(rows[at], name) for at in order]
        columns.append(pa.array(map(signed, cells) if name == "item_id" else cells, schema.field(name).type))
    return columns


def _group_sizes(lengths: list[int]) -> list[int]:
    """Rows of each group: 64, or fewer where inline images would pass the limit."""
    sizes: list[int] = []
    size = total = 0
    for length in lengths:
        if size == GROUP_ROWS or (size and total + length > GROUP_CONTENT_BYTES):
            sizes.append(size)
            size = total = 0
        size += 1
        total += length
    return [*sizes, size] if size else sizes


def _groups(
    rows: Sequence[FeatureRow] | Sequence[FailureRow], order: list[int], sizes: list[int], schema: pa.Schema
) -> Iterator[pa.Table]:
    """Row groups of these sizes, one table after the other: the images of one are in memory."""
    at = 0
    for size in sizes:
        yield pa.table(_columns(rows, order[at : at + size], schema.names, schema), schema=schema)
        at += size


def _slices(table: pa.Table, sizes: list[int]) -> Iterator[pa.Table]:
    at = 0
    for size in sizes:
        yield table.slice(at, size)
        at += size


def _write(path: Path, schema: pa.Schema, groups: Iterable[pa.Table]) -> Written:
    file, rows = HashedFile(path), 0
    try:
        with pq.ParquetWriter(
            file, schema, compression="zstd", compression_level=1, use_dictionary=False, write_statistics=False
        ) as writer:
            for group in groups:
                writer.write_table(group, row_group_size=len(group))
                rows += len(group)
    finally:
        file.close()
    return file.written(rows)


def _needed(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)
