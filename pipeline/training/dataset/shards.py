"""Our own form of a dataset: Parquet shards, and a manifest that is written last.

A field of the Datum that is not set is null, so that a database that is written from shards has the same records.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet as pq

from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError, FormatError
from pipeline.training.dataset.manifest import MANIFEST, Manifest, ShardFile, read_manifest

__all__ = ["BATCH_ROWS", "FEATURES", "MANIFEST", "batches", "read", "read_manifest", "write"]

FEATURES = "features"
"""The kind of a dataset that holds them, and the column."""
BATCH_ROWS = 64
_GROUP, _SHARD = 8 * 2**20, 256 * 2**20  # bytes of pixels: a row group is read at once
_FIELDS = ("channels", "height", "width", "label", "encoded", "data")

SCHEMA = pa.schema(
    [
        pa.field("key", pa.binary(), nullable=False),
        *(pa.field(name, pa.int32()) for name in _FIELDS[:4]),
        pa.field("encoded", pa.bool_()),
        pa.field("data", pa.binary()),
        pa.field("float_data", pa.list_(pa.float32())),
    ]
)

Record = tuple[bytes, caffe_pb2.Datum]


def write(folder: Path, records: Iterable[Record], source: str) -> int:
    """Writes shards and, last, the manifest into an empty folder; the number of examples.  source: where from."""
    labels: Counter[int] = Counter()
    found: list[ShardFile] = []
    for number, shard in enumerate(_cut(records)):
        path = folder / name_of(number)
        rows = 0
        with pq.ParquetWriter(path, SCHEMA, compression="none") as writer:
            for group in shard:
                writer.write_table(pa.Table.from_pylist([_row(*record) for record in group], schema=SCHEMA))
                labels.update(datum.label for _, datum in group)
                rows += len(group)
        found.append(ShardFile(name=path.name, rows=rows, sha256=digest_of(path)))
    count = sum(labels.values())
    told = {str(label): labels[label] for label in sorted(labels)}
    Manifest(source=source, examples=count, labels=told, shards=found).write(folder)
    return count


def name_of(number: int) -> str:
    """The file of a shard."""
    return f"part-{number:05d}.parquet"


def read(folder: Path, side: str | None = None) -> Iterator[Record]:
    """The records in the order in which they were written; a feature is a Datum of floats.

    side: only this one.  Raises as `batches`.
    """
    features = read_manifest(folder).kind == FEATURES
    columns = ["key", "label", FEATURES] if features else SCHEMA.names
    for batch in batches(folder, side, columns):
        yield from (_of_feature(row) if features else record_of(row) for row in batch.to_pylist())


def batches(folder: Path, side: str | None = None, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows as Arrow batches of 64, in the order in which they were written.

    side: only this one; columns: only these.
    Raises ConfigError for a side that the dataset lacks; FormatError for a manifest that is not ours, and for a shard
    that has changed since.
    """
    found = read_manifest(folder)
    if side is not None and side not in found.sides:
        has = f"its sides are: {', '.join(found.sides)}" if found.sides else "it has no sides"
        raise ConfigError(f"the dataset {folder} has no side '{side}'", has, "name one of its sides, or none for all")
    for shard in found.shards:
        if side in (None, shard.side):
            yield from _batches_of(folder / shard.name, shard, columns)


def _batches_of(path: Path, shard: ShardFile, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    if not path.is_file() or digest_of(path) != shard.sha256:
        raise FormatError(
            f"the shard {path} has changed since it was written",
            "its bytes are others, or it is missing",
            "bring the dataset in again",
        )
    with pq.ParquetFile(path, pre_buffer=False) as file:  # else all row groups come into memory at once
        if missing := [name for name in columns or () if name not in file.schema_arrow.names]:
            raise FormatError(f"the shard {path} has no column {missing[0]}", "", "bring the dataset in again")
        yield from file.iter_batches(batch_size=BATCH_ROWS, columns=columns and list(columns))


def _cut(records: Iterable[Record]) -> Iterator[Iterator[list[Record]]]:
    """Shards of row groups of records."""
    groups = _groups(records)
    for first in groups:

        def shard(group: list[Record] | None = first) -> Iterator[list[Record]]:
            size = 0
            while group is not None:
                yield group
                size += sum(_size(datum) for _, datum in group)
                group = next(groups, None) if size < _SHARD else None

        yield shard()


def _groups(records: Iterable[Record]) -> Iterator[list[Record]]:
    group: list[Record] = []
    size = 0
    for record in records:
        group.append(record)
        size += _size(record[1])
        if size >= _GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _size(datum: caffe_pb2.Datum) -> int:
    return len(datum.data) + 4 * len(datum.float_data)


def _row(key: bytes, datum: caffe_pb2.Datum) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(datum, name) if datum.HasField(name) else None for name in _FIELDS}
    return {"key": key, **row, "float_data": list(datum.float_data) or None}


def record_of(row: dict[str, Any]) -> Record:
    """A row of images as a record."""
    datum = caffe_pb2.Datum(**{name: row[name] for name in _FIELDS if row[name] is not None})
    datum.float_data.extend(row["float_data"] or ())
    return row["key"], datum


def _of_feature(row: dict[str, Any]) -> Record:
    datum = caffe_pb2.Datum(channels=len(row[FEATURES]), height=1, width=1, label=row["label"])
    datum.float_data.extend(row[FEATURES])
    return row["key"], datum


def digest_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
