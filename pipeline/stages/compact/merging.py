"""Sorted tables of one partner -> one, in which the greatest shipment wins each item; a block of each in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet as pq

from pipeline.amounts import counted
from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.codec.delivered.parquet import SHIPMENT, features_schema, vectors_of
from pipeline.codec.shards import FEATURES
from pipeline.errors import FormatError, NotFound
from pipeline.records import Numbers

BLOCK_ROWS, _IMAGE_ROWS = 1024, 32
"""Rows of a block: of features, and of images."""
_IMAGE = 128 * 2**10
"""What an image takes, about, bytes."""
MEMORY = 256 * 2**20
"""What the blocks of one merge may hold together, about; with more inputs some are merged first."""
_MOST_INPUTS = 64
_HELD = 8
"""A file holds its block so many times over (measured): as pages, decoded, as rows, and as those that are chosen."""
CANNOT = "a delivered table cannot be merged"

Ids = npt.NDArray[np.uint64]
Ranks = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Input:
    """One file, sorted by its unsigned item id.  shipment: of all its rows; None where a column tells it.

    numbers: of its features, as its manifest says.
    """

    name: str
    open: Callable[[], BinaryIO]
    shipment: str | None
    rows: int
    numbers: Numbers = "float32"
    fingerprint: str | None = None
    """Only its rows; None: all."""


@dataclass(frozen=True)
class Target:
    """The table that a merge makes: one partner's, of features of one length."""

    partner_id: int
    names: Sequence[str]
    """Every shipment, ascending."""
    dim: int
    """Values of a feature."""


class Unmergeable(FormatError):
    """An input that is not what it is said to be.  shipment: the one that it is of; None where it is a table's."""

    def __init__(self, one: Input, what: str, hint: str) -> None:
        super().__init__(CANNOT, f"{one.name}: {what}", hint)
        self.shipment = one.shipment


@dataclass(frozen=True)
class Rows:
    """Merged rows, each item once, ascending.  ranks: the place of each row's shipment among the names."""

    table: pa.Table
    ranks: Ranks


def numbers_of(inputs: Sequence[Input]) -> Numbers:
    """What a merge of files has: float16 where all have it, else float32, which loses nothing of either."""
    return "float16" if inputs and all(one.numbers == "float16" for one in inputs) else "float32"


def table_schema(dim: int, numbers: Numbers = "float32") -> pa.Schema:
    """The delivered columns, and the shipment that each row came from."""
    return features_schema(dim, numbers).append(pa.field(SHIPMENT, pa.string(), nullable=False))


def most_inputs(dim: int) -> int:
    """Files that may be merged at a time."""
    block = BLOCK_ROWS * 4 * dim if dim else _IMAGE_ROWS * _IMAGE
    return max(2, min(_MOST_INPUTS, MEMORY // (_HELD * block)))


def merged(inputs: Sequence[Input], target: Target) -> Iterator[Rows]:
    """The rows that win, in blocks, of at most `most_inputs` inputs.
    Their features have the type of `numbers_of` the inputs.

    Raises Unmergeable for a file that is lost, damaged, unsorted, of another partner or of another length than it says.
    """
    known = np.array(target.names)
    schema = features_schema(target.dim, numbers_of(inputs))
    cursors: list[_Cursor] = []
    try:
        for one in inputs:
            cursor = _Cursor(one, known, target.partner_id, schema)
            if cursor.more():
                cursors.append(cursor)
        while cursors:
            # Up to the least of the last ids that are here, every row of every file is here.
            bound = min(cursor.ids[-1] for cursor in cursors)
            yield _winners([cursor.take(bound) for cursor in cursors])
            cursors = [cursor for cursor in cursors if cursor.more()]
    finally:
        for cursor in cursors:
            cursor.close()


def _winners(taken: Sequence[tuple[Ids, Ranks, pa.Table]]) -> Rows:
    ids = np.concatenate([one[0] for one in taken])
    ranks = np.concatenate([one[1] for one in taken])
    order = np.lexsort((ranks, ids))
    last = np.append(ids[order][1:] != ids[order][:-1], True)
    chosen = order[last]
    return Rows(pa.concat_tables([one[2] for one in taken]).take(chosen), ranks[chosen])


class _Cursor:
    """One file, block by block."""

    def __init__(self, one: Input, names: npt.NDArray[Any], partner_id: int, schema: pa.Schema) -> None:
        self._input, self._names, self._partner = one, names, partner_id
        self._schema = schema
        try:
            self._stream = one.open()
        except (NotFound, FormatError) as error:
            raise self._wrong(f"the file does not exist: {error.message}") from error
        self._rows = 0
        self._before = -1
        self.ids: Ids = np.zeros(0, np.uint64)
        self._ranks: Ranks = np.zeros(0, np.int64)
        self._table = self._schema.empty_table()
        self._batches = self._read()

    def more(self) -> bool:
        """Whether rows are left; reads the next block where this one is used up."""
        while not len(self.ids):
            try:
                batch = next(self._batches, None)
            except ARROW_ERRORS as error:
                self.close()
                raise self._wrong(damage_of(error)) from error
            if batch is None:
                self.close()
                if self._rows != self._input.rows:
                    raise self._wrong(
                        f"the file has {counted(self._rows, 'row')}, and its manifest says {self._input.rows}"
                    )
                return False
            self._block(batch)
        return True

    def take(self, bound: np.uint64) -> tuple[Ids, Ranks, pa.Table]:
        """Rows up to an id."""
        count = int(np.searchsorted(self.ids, bound, side="right"))
        taken = self.ids[:count], self._ranks[:count], self._table.slice(0, count)
        self.ids, self._ranks, self._table = self.ids[count:], self._ranks[count:], self._table.slice(count)
        return taken

    def close(self) -> None:
        self._stream.close()

    def _read(self) -> Iterator[pa.RecordBatch]:
        file = pq.ParquetFile(self._stream)
        wanted = [*self._schema.names, *([SHIPMENT] if self._input.shipment is None else [])]
        have = file.schema_arrow
        for name in wanted:
            if name not in have.names and (name == SHIPMENT or not self._schema.field(name).nullable):
                raise self._wrong(f"the file has no column {name}")
        rows = _IMAGE_ROWS
        if FEATURES in wanted:
            rows, wanted_type = BLOCK_ROWS, vectors_of(self._schema.field(FEATURES).type.list_size, self._input.numbers)
            if have.field(FEATURES).type != wanted_type:
                what = f"its vectors are {have.field(FEATURES).type}, and the manifests say {wanted_type}"
                raise self._wrong(what, "two nets share this root: give the new set a root of its own")
        columns = [name for name in wanted if name in have.names]
        for group in range(file.num_row_groups):  # asked for all of them, the reader keeps the bytes of each
            yield from file.iter_batches(rows, [group], columns, use_threads=False)

    def _block(self, batch: pa.RecordBatch) -> None:
        self.ids = batch.column("item_id").to_numpy().view(np.uint64)
        partners = batch.column("partner_id").to_numpy()
        if not (partners == self._partner).all():
            raise self._wrong(f"the file holds rows of another partner than {self._partner}")
        ascends = (self.ids[1:] > self.ids[:-1]).all() if len(self.ids) else True
        if not ascends or (len(self.ids) and int(self.ids[0]) <= self._before):
            raise self._wrong(f"the rows after row {self._rows} are not sorted by item")
        self._before = int(self.ids[-1]) if len(self.ids) else self._before
        self._ranks = self._ranks_of(batch)
        self._rows += len(self.ids)
        columns = [
            batch.column(field.name).cast(field.type)
            if field.name in batch.schema.names
            else pa.nulls(len(batch), field.type)
            for field in self._schema
        ]
        self._table = pa.table(columns, schema=self._schema)
        if self._input.fingerprint is not None:
            stays = pc.equal(self._table["fingerprint"], self._input.fingerprint)
            mine = stays.to_numpy(zero_copy_only=False).astype(np.bool_)
            self.ids, self._ranks, self._table = self.ids[mine], self._ranks[mine], self._table.filter(stays)

    def _ranks_of(self, batch: pa.RecordBatch) -> Ranks:
        if self._input.shipment is not None:
            rank = int(np.searchsorted(self._names, self._input.shipment))
            return np.full(len(batch), rank, np.int64)
        column = batch.column(SHIPMENT).dictionary_encode()
        words = np.array(column.dictionary.to_pylist(), dtype=self._names.dtype)
        places = np.searchsorted(self._names, words)
        if len(words) and not (self._names[np.minimum(places, len(self._names) - 1)] == words).all():
            raise self._wrong("the file holds rows of a shipment that its manifest does not name")
        return np.asarray(places[column.indices.to_numpy()], np.int64)

    def _wrong(self, what: str, hint: str = "run `hathi verify --deep`: it names every damaged file") -> Unmergeable:
        return Unmergeable(self._input, what, hint)
