"""Rows in the order of the lake -> shards in the order of a dataset, in bounded memory.

Each row goes to a file for its range of the order on the local disk; then one range after the other is sorted in
memory, and written.  A range that is written is deleted, so that a row lies on the disk about once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc
from pyarrow import parquet as pq

from pipeline.codec.shards import FEATURES, IMAGE, vectors
from pipeline.training.dataset.manifest import ShardFile
from pipeline.training.dataset.shards import SCHEMA, digest_of, name_of

RANGE_BYTES = 128 * 2**20
"""Of a range: it is in memory as a whole."""
MOST_RANGES = 512
SHARD_BYTES, GROUP_BYTES = 256 * 2**20, 8 * 2**20
OF_FEW_VALUES = ("side", "fingerprint")
"""Columns that are written by dictionary."""
_AT_ONCE = 32 * 2**20
_OWN = ("partner_id", "item_id", "external_id", "content_sha256", "fingerprint")
_EXTRA = [
    pa.field("side", pa.string(), nullable=False),
    pa.field("partner_id", pa.int64(), nullable=False),
    pa.field("item_id", pa.int64(), nullable=False),
    pa.field("external_id", pa.string(), nullable=False),
    pa.field("content_sha256", pa.binary(32), nullable=False),
    pa.field("fingerprint", pa.string(), nullable=False),
]


def schema_of(dim: int) -> pa.Schema:
    """The columns of a shard.  dim: numbers of a feature, 0 for images."""
    if not dim:
        return pa.schema([*SCHEMA, *_EXTRA])
    of_features = pa.field(FEATURES, vectors(dim), nullable=False)
    return pa.schema([SCHEMA.field("key"), SCHEMA.field("label"), of_features, *_EXTRA])


@dataclass(frozen=True)
class Order:
    """What each example becomes, by its place in the dataset: label (its number), side (a place among `names`)."""

    labels: NDArray[np.int32]
    sides: NDArray[np.int32]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)


class Assembly:
    """A dataset on its way.  folder: the dataset's, still under another name; bytes: of all examples, about."""

    def __init__(self, folder: Path, order: Order, dim: int, size: int) -> None:
        self._folder, self._order, self._dim = folder, order, dim
        self._column = FEATURES if dim else IMAGE
        ranges = max(1, min(MOST_RANGES, -(-size // RANGE_BYTES), len(order) or 1))
        self._length = max(1, -(-len(order) // ranges))
        self._work = folder / "ranges"
        self._work.mkdir()
        self._schema = pa.schema(
            [
                pa.field("place", pa.int64()),
                *(field for field in _EXTRA if field.name in _OWN),
                pa.field(self._column, vectors(dim) if dim else pa.binary()),
            ]
        )
        self._files: dict[int, tuple[pa.OSFile, pa.RecordBatchWriter]] = {}
        self._waiting: list[pa.Table] = []
        self._held = 0

    def add(self, rows: pa.Table, places: NDArray[np.int64]) -> None:
        """Rows, and the place of each in the dataset; -1 for one that is no example.

        rows: with the columns partner_id, item_id, external_id, content_sha256, fingerprint, and image or features.
        """
        chosen = np.flatnonzero(places >= 0)
        if not len(chosen):
            return
        some = rows.select([*_OWN, self._column]).take(pa.array(chosen))
        table = some.add_column(0, "place", pa.array(places[chosen])).cast(self._schema)
        self._waiting.append(table)
        self._held += table.nbytes
        if self._held >= _AT_ONCE:
            self._deal()

    def _deal(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting, self._held = [], 0
        ranges = table["place"].to_numpy() // self._length
        for number in np.unique(ranges).tolist():
            if number not in self._files:
                file = pa.OSFile(str(self._work / str(number)), "wb")
                self._files[number] = file, pa.ipc.new_stream(file, self._schema)
            self._files[number][1].write_table(table.take(pa.array(np.flatnonzero(ranges == number))))

    def write(self) -> list[ShardFile]:
        """The shards, in order."""
        self._deal()
        for file, writer in self._files.values():
            writer.close()
            file.close()
        shards = _Shards(self._folder, schema_of(self._dim))
        for number in sorted(self._files):
            path = self._work / str(number)
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_stream(source).read_all()
                self._write_range(shards, table.take(pa.array(np.argsort(table["place"].to_numpy()))))
                del table
            path.unlink()
        self._work.rmdir()
        return shards.close()

    def _write_range(self, shards: _Shards, table: pa.Table) -> None:
        """Row groups of some megabytes, cut where the side changes."""
        places = table["place"].to_numpy()
        sides = self._order.sides[places]
        value = 4 * self._dim
        sizes = np.full(len(table), value) if value else pc.binary_length(table[IMAGE]).to_numpy()
        first = held = 0
        for at in range(len(table)):
            held += int(sizes[at])
            last = at + 1 == len(table)
            if last or held >= GROUP_BYTES or sides[at + 1] != sides[at]:
                group = self._columns(table.slice(first, at + 1 - first), places[first : at + 1])
                shards.write(group, self._order.names[sides[at]], held)
                first, held = at + 1, 0

    def _columns(self, rows: pa.Table, places: NDArray[np.int64]) -> pa.Table:
        count = len(rows)
        partners, items = rows["partner_id"].to_pylist(), rows["item_id"].to_numpy().view(np.uint64).tolist()
        numbered = zip(places.tolist(), partners, items, strict=True)
        columns: dict[str, pa.Array | pa.ChunkedArray] = {
            "key": pa.array([b"%08d_%d_%d" % one for one in numbered], pa.binary()),
            "label": pa.array(self._order.labels[places]),
            "side": pa.array([self._order.names[side] for side in self._order.sides[places]], pa.string()),
            **{name: rows[name] for name in _OWN},
        }
        if self._dim:
            columns[FEATURES] = rows[FEATURES]
        else:
            columns |= {"encoded": pa.array([True] * count), "data": rows[IMAGE]}
        schema = schema_of(self._dim)
        return pa.table([columns.get(field.name, pa.nulls(count, field.type)) for field in schema], schema=schema)


class _Shards:
    """Files of one side each, of some hundred megabytes."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self._writer: pq.ParquetWriter | None = None
        self._side = ""
        self._size = self._rows = 0
        self._found: list[ShardFile] = []

    def write(self, group: pa.Table, side: str, size: int) -> None:
        if self._writer is not None and (side != self._side or self._size >= SHARD_BYTES):
            self._end()
        if self._writer is None:
            path = self._folder / name_of(len(self._found))
            self._writer = pq.ParquetWriter(path, self._schema, compression="none", use_dictionary=list(OF_FEW_VALUES))
            self._side, self._size, self._rows = side, 0, 0
        self._writer.write_table(group, row_group_size=len(group))
        self._size += size
        self._rows += len(group)

    def close(self) -> list[ShardFile]:
        self._end()
        return self._found

    def _end(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        path = self._folder / name_of(len(self._found))
        self._found.append(ShardFile(name=path.name, rows=self._rows, sha256=digest_of(path), side=self._side))


def labels_of(order: Order) -> dict[str, Counter[int]]:
    """Of each side the examples by label."""
    found: dict[str, Counter[int]] = {name: Counter() for name in order.names}
    for at, name in enumerate(order.names):
        labels, counts = np.unique(order.labels[order.sides == at], return_counts=True)
        found[name].update(dict(zip(labels.tolist(), counts.tolist(), strict=True)))
    return found
