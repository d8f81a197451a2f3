"""A dataset of our own as a Data layer reads it: records by their number, each from its row group.

`data_param.source` is the dataset's folder, or FOLDER/SIDE for one of its sides; `backend` says nothing then.  Who
wants a few records reads the row groups that hold them (8 MB of pixels each), and keeps the last ones.
"""

from __future__ import annotations

import bisect
import functools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet as pq

from pipeline.amounts import counted
from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.errors import FormatError, SolverError
from pipeline.training.dataset.manifest import MANIFEST, read_manifest
from pipeline.training.dataset.shards import FEATURES, SCHEMA, record_of

_KEPT = 6  # row groups
_HINT = "bring the dataset in again, or name another one"


@dataclass(frozen=True)
class _Group:
    """A row group of a shard.  first: the number of its first record."""

    path: Path
    number: int
    first: int


class Parquet:
    """Records of a dataset's images, in the order in which they were written; any thread may read."""

    def __init__(self, path: Path, folder: Path, side: str) -> None:
        """path: as the layer names it.  Raises FormatError for a shard that is not what the manifest says."""
        self.path = path
        self._groups: list[_Group] = []
        self._lock = threading.Lock()
        count = 0
        for shard in read_manifest(folder).shards:
            if side and shard.side != side:
                continue
            file = folder / shard.name
            try:
                metadata = pq.read_metadata(file)
            except ARROW_ERRORS as error:
                raise FormatError(f"the shard {file} cannot be read", damage_of(error), _HINT) from error
            if metadata.num_rows != shard.rows:
                says = f"it has {counted(metadata.num_rows, 'row')}, the manifest says {shard.rows}"
                raise FormatError(f"the shard {file} has changed since it was written", says, _HINT)
            for number in range(metadata.num_row_groups):
                self._groups.append(_Group(file, number, count))
                count += metadata.row_group(number).num_rows
        self._firsts = [one.first for one in self._groups]
        self._count = count
        self._table = functools.lru_cache(maxsize=_KEPT)(self._read_group)
        self.keys: Sequence[bytes] = _Keys(self)

    def __len__(self) -> int:
        return self._count

    def read(self, numbers: Sequence[int]) -> Iterator[bytes | memoryview]:
        for number in numbers:
            table, at = self._place(number)
            yield record_of(table.slice(at, 1).to_pylist()[0])[1].SerializeToString()

    def key(self, number: int) -> bytes:
        """The key of a record."""
        table, at = self._place(number)
        found: bytes = table["key"][at].as_py()
        return found

    def _place(self, number: int) -> tuple[pa.Table, int]:
        group = bisect.bisect_right(self._firsts, number) - 1
        with self._lock:
            return self._table(group), number - self._firsts[group]

    def _read_group(self, number: int) -> pa.Table:
        one = self._groups[number]
        try:
            with pq.ParquetFile(one.path, pre_buffer=False) as file:
                return file.read_row_group(one.number, columns=SCHEMA.names, use_threads=False)
        except ARROW_ERRORS as error:
            raise FormatError(f"the shard {one.path} cannot be read", damage_of(error), _HINT) from error

    def close(self) -> None:
        """Lets go what was kept."""
        self._table.cache_clear()


class _Keys(Sequence[bytes]):
    """Keys by number, each read when it is asked for."""

    def __init__(self, records: Parquet) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number):  # type: ignore[no-untyped-def]
        if isinstance(number, slice):
            return [self._records.key(one) for one in range(*number.indices(len(self)))]
        return self._records.key(number)


def is_dataset(path: Path) -> bool:
    """Whether a dataset of our own lies there, or one of which this is a side."""
    return (path / MANIFEST).is_file() or (path.parent / MANIFEST).is_file()


def open_dataset(path: Path, field: str) -> Parquet:
    """Raises SolverError, which names the field, for features, and for a side that is not there; FormatError."""
    folder, side = (path, "") if (path / MANIFEST).is_file() else (path.parent, path.name)
    found = read_manifest(folder)
    if found.kind == FEATURES:
        says = "a Data layer takes images; hathi train head takes features"
        raise SolverError(f"{field}: {folder} is a dataset of features", says, "name a dataset of images")
    if side and side not in found.sides:
        has = f"its sides are: {', '.join(found.sides)}" if found.sides else "it has no sides"
        raise SolverError(f"{field}: the dataset {folder} has no side '{side}'", has, "name one of its sides")
    return Parquet(path, folder, side)
