"""Finding the row of an own list that each feature came from, and keeping columns of it: `hathi run --keep`.

A join at the end of a run: the list is read once more by the readers that ship it, so that a row's partner, item and
image are the same, and the ledger knows nothing of it.  The row is the one of the feature's item with the feature's
image, its URL or its bytes: in the file that the feature's shipment names, of several such rows the last.  Where that
file has changed since, what was kept before stands, else such a row of the list as it is now.

Features and list are cut alike into ranges of items, which wait on the disk: one range at a time is in memory.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet as pq

from pipeline.app.keepable import files_of
from pipeline.app.kept_columns import KEYS, MADE_FROM, KeptColumns, kept_under, places_in
from pipeline.app.kept_types import Typed
from pipeline.app.newest_features import newest_features
from pipeline.app.own_folder import SET, private
from pipeline.codec.refs.tables import Taken
from pipeline.errors import FormatError
from pipeline.ledger.layout import Root, ShipmentName
from pipeline.ledger.manifest import Plan
from pipeline.ledger.protocol import Context, readable
from pipeline.operations.forget.made import KEEPING
from pipeline.process.lock import Held, locked
from pipeline.settings import Hdfs
from pipeline.sources.conventions import named_by
from pipeline.sources.found import Found
from pipeline.stages.compact.nets import ALL
from pipeline.stages.compact.reading import delivered_by_partner
from pipeline.stores.opening import open_place

RANGE = 2**18
"""Features that are joined at a time."""
_IMAGE = ("url", "content_sha256")
_ORDER, _FILE = "_order", "_file"
ANEW = "table"
"""The table on its way."""


@dataclass(frozen=True)
class Kept:
    """What came of it.  features: all; found: those of which a row is known."""

    features: int
    found: int


def keep_columns(context: Context, keep: Sequence[str], stop: Callable[[], bool]) -> Kept | None:
    """Make the table anew where features, list or columns are others than it was made of.

    None where nothing is delivered, where it is stopped, or where another process is at it:
    the next run does it.
    """
    where = Path(context.settings.sets[SET].root)
    try:
        with locked(Path(context.settings.state), KEEPING):
            return _keep(context, keep, where, stop)
    except Held:
        return None  # somebody is being forgotten there


def _keep(context: Context, keep: Sequence[str], where: Path, stop: Callable[[], bool]) -> Kept | None:
    lake, root = open_place(str(where.parent), Hdfs()), Root(where.name)
    delivered = delivered_by_partner(lake, root) if where.is_dir() else []
    if not delivered:
        return None
    found = named_by(context).found
    names = [(one.partner, one.names) for one in delivered]
    made_from = hashlib.sha256(repr((list(keep), names, [one.digest for one in found])).encode()).hexdigest()
    with ExitStack() as held:
        before = _before(lake, root)
        if before is not None:
            held.callback(before.close)
            if before.made_from == made_from:
                return None
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="keep-", dir=private(where))))
        work = _Work(context, folder, tuple(keep), found, before)
        return work.made(
            newest_features(lake, root, str(where), columns=[*KEYS, *_IMAGE], fingerprint=ALL), made_from, stop
        )


def _before(lake: Any, root: Root) -> KeptColumns | None:
    try:
        return kept_under(lake, root)
    except FormatError:
        return None  # it is made anew


@dataclass
class _Work:
    """One pass over features and list.  keep: the columns; before: the table that stands."""

    context: Context
    folder: Path
    keep: tuple[str, ...]
    found: Sequence[Found]
    before: KeptColumns | None
    ranges: list[tuple[int, int]] = field(default_factory=list)
    """The first partner and item of each."""

    def made(self, features: pa.RecordBatchReader, made_from: str, stop: Callable[[], bool]) -> Kept | None:
        """Write the table; None where it was stopped."""
        rows = self._cut_features(features)
        types = [Typed() for _ in self.keep]
        old = [name for name in self.keep if self.before is not None and name in self._names_before()]
        for name, one in zip(self.keep, types, strict=True):
            if self.before is not None and name in old:
                one.see(self.before.file.schema_arrow.field(name).type)
        for _ in self._cut_list(types):
            if stop():
                return None
        schema = pa.schema(
            [
                pa.field("partner_id", pa.int64(), nullable=False),
                pa.field("item_id", pa.uint64(), nullable=False),
                pa.field("shipment", pa.string(), nullable=False),
                *(pa.field(name, one.type) for name, one in zip(self.keep, types, strict=True)),
            ],
            metadata={MADE_FROM: made_from},
        )
        beside = self.before.beside(old) if self.before is not None else None
        where, found = Path(self.context.settings.sets[SET].root), 0
        with pq.ParquetWriter(self.folder / ANEW, schema) as writer:
            for at in range(len(self.ranges)):
                if stop():
                    return None
                ids = _read(self.folder / f"features.{at}")
                chosen, columns = self._joined(ids, at, types, beside, old)
                arrays = [*(ids[key].filter(chosen) for key in KEYS), *columns]
                writer.write_table(pa.table(arrays, schema=schema))
                found += len(arrays[0])
        os.replace(self.folder / ANEW, where.parent / Root(where.name).kept)
        return Kept(rows, found)

    def _names_before(self) -> list[str]:
        assert self.before is not None
        return [one.name for one in self.before.fields]

    def _cut_features(self, features: pa.RecordBatchReader) -> int:
        """Write them in ranges, which begin where they begin; and how many there are."""
        waiting: list[pa.RecordBatch] = []
        count = rows = 0

        def write() -> None:
            table = pa.Table.from_batches(waiting)
            self.ranges.append((table["partner_id"][0].as_py(), table["item_id"][0].as_py()))
            with pa.ipc.new_file(self.folder / f"features.{len(self.ranges) - 1}", table.schema) as file:
                file.write_table(table)

        for batch in features:
            rows += batch.num_rows
            count += batch.num_rows
            waiting.append(batch)
            if count >= RANGE:
                write()
                waiting, count = [], 0
        if count:
            write()
        return rows

    def _cut_list(self, types: list[Typed]) -> Iterator[None]:
        """Write its rows in the same ranges; yields after each piece."""
        order, context = 0, self.context
        assert context.lake is not None
        with ExitStack() as held:
            writers: dict[tuple[int, pa.Schema], Any] = {}
            for number, found in enumerate(self.found):
                files = files_of(context.lake, context.forms, context.settings, found, self.keep)
                held.callback(files.close)
                for _, taken in files.takes():
                    yield
                    table = self._rows_of(taken, number, order, types)
                    order += len(table)
                    for at, rows in self._by_range(table):
                        key = at, rows.schema
                        if key not in writers:
                            path = self.folder / f"list.{at}.{len(writers)}"
                            writers[key] = held.enter_context(pa.ipc.new_file(path, rows.schema))
                        writers[key].write_table(rows)

    def _rows_of(self, taken: Taken, number: int, order: int, types: list[Typed]) -> pa.Table:
        refs = taken.refs
        columns = {
            "partner_id": pa.array([ref.partner_id for ref in refs], pa.int64()),
            "item_id": pa.array([ref.item_id for ref in refs], pa.uint64()),
            "url": pa.array([ref.url for ref in refs], pa.string()),
            "content_sha256": pa.array(
                [hashlib.sha256(ref.content).digest() if ref.content else None for ref in refs], pa.binary(32)
            ),
            _FILE: pa.array(np.full(len(refs), number, np.int64)),
            _ORDER: pa.array(np.arange(order, order + len(refs), dtype=np.int64)),
        }
        for at, one in enumerate(types):
            columns[str(at)] = one.stored([piece[at] for piece in taken.kept])
        return pa.table(columns)

    def _by_range(self, table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
        """The rows of a piece of the list, by the range of features that their items lie in."""
        if not len(table) or not self.ranges:
            return
        partners = np.array([first[0] for first in self.ranges], np.int64)
        items = np.array([first[1] for first in self.ranges], np.uint64)
        mine, my_items = table["partner_id"].to_numpy(), table["item_id"].to_numpy()
        places = np.full(len(table), -1, np.int64)
        for at in range(len(self.ranges)):
            places[(mine > partners[at]) | ((mine == partners[at]) & (my_items >= items[at]))] = at
        for at in np.unique(places[places >= 0]):
            yield int(at), table.filter(pa.array(places == at))

    def _joined(
        self, ids: pa.Table, at: int, types: list[Typed], beside: Any, old: list[str]
    ) -> tuple[pa.Array, list[Any]]:
        """Which features of a range have a row, and the columns of those."""
        pieces = [_read(path) for path in sorted(self.folder.glob(f"list.{at}.*"))]
        numbers = self._file_of(ids["shipment"])
        count = len(ids)
        exact, any_row = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
        for piece in pieces:
            places = places_in(ids, piece)
            rows = np.flatnonzero(places >= 0)
            rows = rows[_same_image(ids.take(pa.array(places[rows])), piece.take(pa.array(rows)))]
            orders, files = piece[_ORDER].to_numpy()[rows], piece[_FILE].to_numpy()[rows]
            np.maximum.at(any_row, places[rows], orders)
            named = files == numbers[places[rows]]
            np.maximum.at(exact, places[rows][named], orders[named])
        was, known = (None, np.zeros(count, bool)) if beside is None else beside.of(ids)
        use_before = (exact < 0) & known
        orders = np.where(exact >= 0, exact, any_row)
        orders[use_before] = -1
        chosen = (orders >= 0) | use_before
        columns = []
        wanted = [piece.filter(pc.is_in(piece[_ORDER], pa.array(orders[orders >= 0]))) for piece in pieces]
        found = np.concatenate([one[_ORDER].to_numpy() for one in wanted]) if wanted else np.zeros(0, np.int64)
        by_order = np.argsort(found)
        rows = by_order[np.searchsorted(found[by_order], orders[orders >= 0])] if len(found) else found
        places = np.full(count, -1, np.int64)
        places[orders >= 0] = rows
        for column, (name, one) in enumerate(zip(self.keep, types, strict=True)):
            values = [one.read(piece[str(column)]) for piece in wanted]
            if name in old and was is not None:
                places[use_before] = len(found) + np.flatnonzero(use_before)
                values.append(one.read(was[name]))
            else:
                places[use_before] = -1
            every = pa.concat_arrays([chunk for value in values for chunk in value.chunks]) if values else None
            taken = places[chosen]
            if every is None:
                columns.append(pa.nulls(len(taken), one.type))
            else:
                columns.append(every.take(pa.array(taken, mask=taken < 0)))
        return pa.array(chosen), columns

    def _file_of(self, shipments: pa.ChunkedArray) -> Any:
        """For each shipment's name the number of the list's file that it is of, int64; -1 for one that is not there."""
        digests = {one.digest: number for number, one in enumerate(self.found)}
        codes = shipments.combine_chunks().dictionary_encode()
        numbers = []
        for name in codes.dictionary.to_pylist():
            plan = readable(self.context, self.context.keys.plan(ShipmentName.parse(name)), Plan)
            numbers.append(digests.get(plan.snapshot_digest, -1) if plan is not None else -1)
        return np.array(numbers, np.int64)[codes.indices.to_numpy()]


def _same_image(features: pa.Table, rows: pa.Table) -> Any:
    """Whether rows of the list have the features' images: the bytes where a row holds some, else the URL."""
    bytes_alike = pc.fill_null(pc.equal(features["content_sha256"], rows["content_sha256"]), False)
    urls_alike = pc.equal(features["url"], rows["url"])
    alike = pc.if_else(pc.is_valid(rows["content_sha256"]), bytes_alike, urls_alike)
    return np.asarray(alike.to_numpy(zero_copy_only=False) if hasattr(alike, "chunks") else alike, bool)


def _read(path: Path) -> pa.Table:
    with pa.ipc.open_file(path) as file:
        return file.read_all()
