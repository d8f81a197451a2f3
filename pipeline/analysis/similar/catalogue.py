"""A partner's newest feature of each item, as places in delivered files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pyarrow import parquet as pq

from pipeline.amounts import counted
from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.codec.delivered.blocks import Block, blocks, images_not_features, matrix_of
from pipeline.codec.delivered.forms import to_read
from pipeline.codec.delivered.parquet import SHIPMENT
from pipeline.codec.shards import Matrix
from pipeline.errors import ConfigError, FormatError, NotFound
from pipeline.ledger.layout import Root
from pipeline.stages.compact.standing import delta, newest, shipments
from pipeline.stores.store import Lake

Ids = npt.NDArray[np.uint64]
Vector = npt.NDArray[np.float32]
_AT_ONCE = 65_536
_ABOUT = ("url", "external_id")


@dataclass(frozen=True)
class Source:
    """One file of features.  shipment: of all its rows; "" where a column tells it (a compacted table)."""

    path: str
    shipment: str
    rows: int
    dim: int


@dataclass(frozen=True)
class About:
    """What a row says besides its vector; "" where its file does not tell (text)."""

    url: str = ""
    external_id: str = ""


class Catalogue:
    """Rows are numbered through all sources.  Memory: about 30 bytes a row while it is made, 9 afterwards."""

    def __init__(self, lake: Lake, sources: Sequence[Source]) -> None:
        """Raises FormatError for a damaged file."""
        self._lake = lake
        self.sources = tuple(sources)
        self._starts = np.cumsum([0, *(one.rows for one in sources)])
        numbers: dict[str, int] = {}
        parts = [_ids(lake, one, numbers) for one in sources]
        self.ids: Ids = np.concatenate([ids for ids, _ in parts])
        self.wins = _newest(self.ids, np.concatenate([named for _, named in parts]), numbers)

    def __len__(self) -> int:
        """Items."""
        return int(self.wins.sum())

    def row_of(self, item_id: int) -> int | None:
        """The row of an item's newest feature."""
        found = np.flatnonzero((self.ids == np.uint64(item_id)) & self.wins)
        return int(found[0]) if len(found) else None

    def blocks(self) -> Iterator[tuple[npt.NDArray[np.int64], Block]]:
        """The newest features, block by block, with their rows' numbers."""
        for start, source in zip(self._starts.tolist(), self.sources, strict=False):
            if not self.wins[start : start + source.rows].any():
                continue
            with self._lake.open(source.path) as stream:
                for block in blocks(source.path, stream, source.dim):
                    rows = start + block.first + np.arange(len(block.item_id))
                    yield rows, block

    def features(self, rows: Sequence[int]) -> tuple[Matrix, list[str]]:
        """The vectors (n, dim) of some rows, and their fingerprints; reads the row groups that they lie in."""
        found: dict[int, tuple[Vector, str]] = {}
        for source, places in self._by_source(rows):
            for place, vector, fingerprint in _vectors(self._lake, self.sources[source], places):
                found[int(self._starts[source]) + place] = vector, fingerprint
        return np.stack([found[row][0] for row in rows]), [found[row][1] for row in rows]

    def about(self, rows: Sequence[int]) -> list[About]:
        """URL and external id of some rows."""
        found: dict[int, About] = {}
        for number, places in self._by_source(rows):
            source = self.sources[number]
            if not source.path.endswith(".parquet"):
                continue
            with self._lake.open(source.path) as stream:
                file = pq.ParquetFile(stream)
                for group, first, inside in _groups(file, places):
                    table = file.read_row_group(group, columns=list(_ABOUT), use_threads=False)
                    for place in inside:
                        row = table.slice(place - first, 1).to_pylist()[0]
                        found[int(self._starts[number]) + place] = About(row["url"], row["external_id"])
        return [found.get(row, About()) for row in rows]

    def _by_source(self, rows: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """(source, places in its file, ascending)."""
        numbers = np.searchsorted(self._starts, np.array(rows), side="right") - 1
        for number in np.unique(numbers).tolist():
            mine = [row for row, of in zip(rows, numbers.tolist(), strict=True) if of == number]
            yield number, sorted({row - int(self._starts[number]) for row in mine})


def sources_of(lake: Lake, root: Root, partner: int) -> list[Source]:
    """A partner's files: its compacted table, and what was delivered beside it; Parquet, else text.

    Raises ConfigError where there is none.
    """
    found: list[Source] = []
    current = newest(lake, root, partner)
    covered = set(current.body.covers) if current else set()
    if current is not None:
        files, dim = to_read(current.body.files), current.body.dim
        found += [Source(f"{current.folder}/{file.name}", "", file.rows, dim) for file in files]
    for name in shipments(lake, root):
        if str(name) in covered:
            continue
        try:
            body = delta(lake, root, name, partner)
        except NotFound:
            continue  # not this partner's
        folder = root.partner(name, partner)
        files = to_read(body.files)
        found += [Source(f"{folder}/{file.name}", str(name), file.rows, body.dim) for file in files]
    if not found:
        raise ConfigError(f"no features of partner {partner}", f"under {root.root}", "look at the partner's number")
    if strange := next((one.path for one in found if one.rows and not one.dim), None):
        raise images_not_features(strange)
    return found


def _ids(lake: Lake, source: Source, numbers: dict[str, int]) -> tuple[Ids, npt.NDArray[np.int32]]:
    """The ids of a file, and the numbers of its rows' shipments; names that are new get one."""
    ids: list[Ids] = [np.zeros(0, np.uint64)]
    named: list[npt.NDArray[np.int32]] = [np.zeros(0, np.int32)]
    with lake.open(source.path) as stream:
        if not source.path.endswith(".parquet"):
            ids += [block.item_id for block in blocks(source.path, stream, source.dim)]
        else:
            columns = ["item_id"] if source.shipment else ["item_id", SHIPMENT]
            try:
                for batch in pq.ParquetFile(stream).iter_batches(_AT_ONCE, columns=columns, use_threads=False):
                    ids.append(batch.column("item_id").to_numpy().view(np.uint64))
                    if not source.shipment:
                        column = batch.column(SHIPMENT).dictionary_encode()
                        own = [numbers.setdefault(name, len(numbers)) for name in column.dictionary.to_pylist()]
                        named.append(np.array(own, np.int32)[column.indices.to_numpy()])
            except ARROW_ERRORS as error:
                what = f"{source.path}: {damage_of(error)}"
                raise FormatError("a delivered file is damaged", what, "hathi verify") from error
    found = np.concatenate(ids)
    if len(found) != source.rows:
        what = f"{source.path}: {counted(len(found), 'row')}, and its manifest says {source.rows}"
        raise FormatError("a delivered file is damaged", what, "hathi verify")
    if source.shipment:
        return found, np.full(len(found), numbers.setdefault(source.shipment, len(numbers)), np.int32)
    return found, np.concatenate(named)


def _newest(ids: Ids, named: npt.NDArray[np.int32], numbers: dict[str, int]) -> npt.NDArray[np.bool_]:
    """Which rows win: of each id the one of the greatest shipment."""
    ranks = np.zeros(len(numbers), np.int32)
    ranks[[numbers[name] for name in sorted(numbers)]] = np.arange(len(numbers))
    order = np.lexsort((ranks[named], ids))
    last = np.append(ids[order][1:] != ids[order][:-1], True)[: len(ids)]
    wins = np.zeros(len(ids), np.bool_)
    wins[order[last]] = True
    return wins


def _groups(file: Any, places: Sequence[int]) -> Iterator[tuple[int, int, list[int]]]:
    """(row group, its first row, those of the places that lie in it), for groups that hold any."""
    first = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        inside = [place for place in places if first <= place < first + rows]
        if inside:
            yield group, first, inside
        first += rows


def _vectors(lake: Lake, source: Source, places: Sequence[int]) -> Iterator[tuple[int, Vector, str]]:
    """(place, vector, fingerprint) of some rows of a file."""
    with lake.open(source.path) as stream:
        if source.path.endswith(".parquet"):
            file = pq.ParquetFile(stream)
            for group, first, inside in _groups(file, places):
                table = file.read_row_group(group, columns=["fingerprint", "features"], use_threads=False)
                some = table.take([place - first for place in inside])
                matrix = matrix_of(source.path, some.column("features").combine_chunks())
                yield from zip(inside, matrix, some.column("fingerprint").to_pylist(), strict=True)
            return
        wanted = set(places)
        for block in blocks(source.path, stream, source.dim):
            for place in sorted(wanted & set(range(block.first, block.first + len(block.item_id)))):
                yield place, block.matrix[place - block.first], block.fingerprint[place - block.first]
