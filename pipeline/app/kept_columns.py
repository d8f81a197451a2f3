"""Columns of an own list beside its features: the table that a run with --keep makes, `.hathi/kept.parquet`.

It has one row for each feature whose row in the list is known, sorted as features are, by partner and unsigned item.  A
row is of one shipment: beside a newer feature of the item it stands for nothing until a run has found the newer row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet as pq

from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.errors import FormatError, NotFound
from pipeline.ledger.layout import Root
from pipeline.stores.store import Lake

KEYS = ("partner_id", "item_id", "shipment")
MADE_FROM = b"hathi.made_from"
_ROWS = 4096


@dataclass(frozen=True)
class KeptColumns:
    """An open table.  made_from: what it follows from, as its maker says."""

    where: str
    file: pq.ParquetFile
    stream: BinaryIO

    @property
    def fields(self) -> list[pa.Field]:
        """The columns that were kept."""
        return [field for field in self.file.schema_arrow if field.name not in KEYS]

    @property
    def made_from(self) -> str:
        """What the table follows from, as its maker says."""
        told: bytes = (self.file.schema_arrow.metadata or {}).get(MADE_FROM, b"")
        return told.decode("utf-8", "replace")

    def close(self) -> None:
        """Close the file."""
        self.stream.close()

    def beside(self, names: list[str]) -> Beside:
        """Goes through the table as through features.  names: of the columns."""
        return Beside(self, names)


class Beside:
    """Rows of a table for rows of features, which come sorted by partner and unsigned item, as the table is."""

    def __init__(self, kept: KeptColumns, names: list[str]) -> None:
        self._kept, self._names = kept, names
        self._rows = kept.file.schema_arrow.empty_table().select([*KEYS, *names])
        self._batches: Iterator[Any] = kept.file.iter_batches(_ROWS, columns=[*KEYS, *names], use_threads=False)

    def of(self, features: pa.Table) -> tuple[pa.Table, Any]:
        """The kept columns row for row, null where there is no row; and which rows have one, bool (rows,).

        features: with partner_id (int64), item_id (uint64) and shipment.  Raises FormatError for a damaged table.
        """
        if features.num_rows:
            try:
                self._read(_key(features, 0), _key(features, features.num_rows - 1))
            except ARROW_ERRORS as error:
                what = f"{self._kept.where} cannot be read"
                raise FormatError(
                    what, damage_of(error), "delete it: the next run with --keep makes it anew"
                ) from error
        places = places_in(self._rows, features)
        found = places >= 0
        rows = self._rows["shipment"].take(pa.array(places[found]))
        same = pc.equal(rows, features["shipment"].filter(pa.array(found)))
        found[np.flatnonzero(found)[~same.to_numpy(zero_copy_only=False)]] = False
        return self._rows.select(self._names).take(pa.array(places, mask=~found)), found

    def _read(self, first: tuple[int, int], last: tuple[int, int]) -> None:
        """Have the rows between two keys at hand, and forget those before."""
        while True:
            partners, items = _ids(self._rows)
            before = (partners < first[0]) | ((partners == first[0]) & (items < np.uint64(first[1])))
            self._rows = self._rows.slice(int(before.sum()))
            if self._rows.num_rows and _key(self._rows, self._rows.num_rows - 1) >= last:
                return
            batch = next(self._batches, None)
            if batch is None:
                return
            self._rows = pa.concat_tables([self._rows, pa.Table.from_batches([batch])]).combine_chunks()


def kept_under(lake: Lake, root: Root) -> KeptColumns | None:
    """The table under a root; None where no run has kept a column.  Raises FormatError where it is damaged."""
    path = root.kept
    try:
        stream = lake.open(path)
    except NotFound:
        return None
    try:
        return KeptColumns(path, pq.ParquetFile(stream), stream)
    except ARROW_ERRORS as error:
        stream.close()
        hint = "delete it: the next run with --keep makes it anew"
        raise FormatError(f"{path} cannot be read", damage_of(error), hint) from error


def places_in(table: pa.Table, rows: pa.Table) -> Any:
    """For each of `rows` the place of its partner and item in a table that is sorted by them, int64; -1 for none."""
    partners, items = _ids(table)
    wanted_partners, wanted_items = _ids(rows)
    places = np.full(len(wanted_items), -1, np.int64)
    for partner in np.unique(wanted_partners):
        first, last = np.searchsorted(partners, [partner, partner + 1])
        mine = np.flatnonzero(wanted_partners == partner)
        if first == last:
            continue
        at = first + np.searchsorted(items[first:last], wanted_items[mine])
        there = (at < last) & (items[np.minimum(at, last - 1)] == wanted_items[mine])
        places[mine[there]] = at[there]
    return places


def _ids(table: pa.Table) -> tuple[Any, Any]:
    return table["partner_id"].to_numpy(), table["item_id"].to_numpy().view(np.uint64)


def _key(table: pa.Table, row: int) -> tuple[int, int]:
    return table["partner_id"][row].as_py(), table["item_id"][row].as_py()
