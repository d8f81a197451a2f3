"""Our own form of a dataset: Parquet shards, and a manifest that is written last.

A field of the Datum that is not set is null, so that a database that is written from shards has the same records.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet as pq

from pipeline.codec import caffe_pb2
from pipeline.errors import FormatError

MANIFEST = "_manifest.json"
_FORMAT = 1
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
    found: list[dict[str, Any]] = []
    for number, shard in enumerate(_cut(records)):
        path = folder / f"part-{number:05d}.parquet"
        rows = 0
        with pq.ParquetWriter(path, SCHEMA, compression="none") as writer:
            for group in shard:
                writer.write_table(pa.Table.from_pylist([_row(*record) for record in group], schema=SCHEMA))
                labels.update(datum.label for _, datum in group)
                rows += len(group)
        found.append({"name": path.name, "rows": rows, "sha256": _digest(path)})
    count = sum(labels.values())
    manifest = {
        "format": _FORMAT,
        "source": source,
        "examples": count,
        "labels": {str(label): labels[label] for label in sorted(labels)},
        "shards": found,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return count


def read(folder: Path) -> Iterator[Record]:
    """The records in the order in which they were written.

    Raises FormatError for a manifest that is not ours, and for a shard that has changed since.
    """
    for shard in _manifest(folder)["shards"]:
        path = folder / str(shard["name"])
        if not path.is_file() or _digest(path) != shard["sha256"]:
            raise FormatError(
                f"the shard {path} has changed since it was written",
                "its bytes are others, or it is missing",
                "bring the dataset in again",
            )
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64):
                yield from (_record(row) for row in batch.to_pylist())


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text())
        if found["format"] != _FORMAT or not isinstance(found["shards"], list):
            raise ValueError(f"its format is {found['format']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        says = "it is damaged, or a newer Hathi wrote it"
        raise FormatError(f"the manifest {path} cannot be read", f"{says}: {error}", "bring it in again") from error
    return dict(found)


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


def _record(row: dict[str, Any]) -> Record:
    datum = caffe_pb2.Datum(**{name: row[name] for name in _FIELDS if row[name] is not None})
    datum.float_data.extend(row["float_data"] or ())
    return row["key"], datum


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
