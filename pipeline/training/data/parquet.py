"""A dataset of our own as a Data layer reads it: records by their number, each from its row group.

`data_param.source` is the dataset's folder, or FOLDER/SIDE for one of its sides; `backend` says nothing then.  In place
of a folder it may be the URL of one in a lake or a bucket.  Who wants a few records reads the row groups that hold them
(8 MB of pixels each), and keeps the last ones.
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
from pipeline.errors import FormatError, NotFound, PipelineError, SolverError
from pipeline.training.data.fetched import HINT, Fetched, Here, Shards
from pipeline.training.data.reach import Reach
from pipeline.training.dataset.manifest import MANIFEST, MOST_BYTES, Manifest, ShardFile, manifest_of, read_manifest
from pipeline.training.dataset.shards import FEATURES, SCHEMA, record_of

_KEPT = 6  # row groups


@dataclass(frozen=True)
class _Shard:
    """first: the number of its first record."""

    file: ShardFile
    first: int


class Parquet:
    """Records of a dataset's images, in the order in which they were written; any thread may read."""

    def __init__(self, path: Path, shards: Shards, side: str) -> None:
        """path: as the layer names it.  Raises FormatError for a shard that is not what the manifest says."""
        self.path = path
        self._from = shards
        self._shards: list[_Shard] = []
        self._lock = threading.Lock()
        count = 0
        for one in shards.manifest.shards:
            if one.rows and (not side or one.side == side):
                self._shards.append(_Shard(one, count))
                count += one.rows
        self._firsts = [one.first for one in self._shards]
        self._count = count
        self._groups_of: dict[int, list[int]] = {}
        self._table = functools.lru_cache(maxsize=_KEPT)(self._read_group)
        if shards.near:  # else one is fetched when it is read
            for number in range(len(self._shards)):
                self._groups(number)
        self.keys: Sequence[bytes] = _Keys(self)

    def __len__(self) -> int:
        return self._count

    @property
    def manifest(self) -> Manifest:
        return self._from.manifest

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
        shard = bisect.bisect_right(self._firsts, number) - 1
        with self._lock:
            firsts = self._groups(shard)
            within = number - self._firsts[shard]
            group = bisect.bisect_right(firsts, within) - 1
            return self._table(shard, group), within - firsts[group]

    def _groups(self, shard: int) -> list[int]:
        """The first record of each row group of a shard, counted within it."""
        if shard not in self._groups_of:
            one = self._shards[shard].file
            file = self._from.file(one)
            try:
                metadata = pq.read_metadata(file)
            except ARROW_ERRORS as error:
                raise FormatError(f"the shard {file} cannot be read", damage_of(error), HINT) from error
            if metadata.num_rows != one.rows:
                says = f"it has {counted(metadata.num_rows, 'row')}, the manifest says {one.rows}"
                raise FormatError(f"the shard {file} has changed since it was written", says, HINT)
            rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
            self._groups_of[shard] = [sum(rows[:number]) for number in range(len(rows))]
        return self._groups_of[shard]

    def _read_group(self, shard: int, group: int) -> pa.Table:
        file = self._from.file(self._shards[shard].file)
        try:
            with pq.ParquetFile(file, pre_buffer=False) as opened:
                return opened.read_row_group(group, columns=SCHEMA.names, use_threads=False)
        except ARROW_ERRORS as error:
            raise FormatError(f"the shard {file} cannot be read", damage_of(error), HINT) from error

    def close(self) -> None:
        """Lets go what was kept."""
        self._table.cache_clear()
        self._from.close()


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
    _demand(found, str(folder), side, field)
    return Parquet(path, Here(folder, found), side)


def open_remote(url: str, reach: Reach, field: str) -> Parquet:
    """A dataset in a lake or a bucket.

    Raises as `open_dataset`; SolverError where none is there; ConfigError for a store that the configuration does not
    name; what the store raises, with the URL.
    """
    url = url.rstrip("/")
    above, _, side = url.rpartition("/")
    try:
        for folder, of_it in ((url, ""), (above, side)):
            store = reach.store(folder)
            try:
                content = store.get(MANIFEST, MOST_BYTES)
            except NotFound:
                continue
            found = manifest_of(content, f"{folder}/{MANIFEST}")
            _demand(found, folder, of_it, field)
            return Parquet(Path(url), Fetched(folder, store, found), of_it)
    except PipelineError as error:
        if not error.message.startswith(field):
            error.message = f"{field}: {url}: {error.message}"
        raise
    raise SolverError(f"{field}: there is no dataset at {url}", f"no {MANIFEST} lies there, nor in the folder above",
                      "copy the whole folder of a dataset there, or correct the URL")  # fmt: skip


def _demand(found: Manifest, folder: str, side: str, field: str) -> None:
    if found.kind == FEATURES:
        says = "a Data layer takes images; hathi train head takes features"
        raise SolverError(f"{field}: {folder} is a dataset of features", says, "name a dataset of images")
    if side and side not in found.sides:
        has = f"its sides are: {', '.join(found.sides)}" if found.sides else "it has no sides"
        raise SolverError(f"{field}: the dataset {folder} has no side '{side}'", has, "name one of its sides")
