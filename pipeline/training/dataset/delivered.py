"""What a root delivers, as a dataset is made of it: its rows in one order, once for their keys and once whole."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet as pq

from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.codec.delivered.forms import is_failures
from pipeline.codec.shards import FEATURES, IMAGE
from pipeline.errors import ConfigError, FormatError, NotFound
from pipeline.ledger.layout import Root
from pipeline.stages.compact.nets import ALL, net_in_use
from pipeline.stages.compact.reading import Delivered, delivered_by_partner, newest_rows
from pipeline.stages.compact.standing import by_partner, delta
from pipeline.stores.store import Lake
from pipeline.training.dataset.joining import numbered
from pipeline.training.dataset.manifest import ArchiveFile, Kind
from pipeline.training.dataset.origin import Beside, Keys, Words


@dataclass(frozen=True)
class Place:
    """A root of deliveries.  where: as a person named it."""

    lake: Lake
    root: Root
    where: str


class Deliveries:
    """The newest row of each item under a root, as it stood when this was made; features of one net alone."""

    def __init__(self, place: Place, kind: Kind, before: Iterable[str] = ()) -> None:
        """before: fingerprints of the dataset that is extended: where features of that net stand, it is this one, else
        the one that readers take (`stages/compact/nets.py`).  Raises ConfigError where nothing is delivered, or the
        other kind.
        """
        self.place = place
        self._others: tuple[str, ...] = ()
        net = ALL
        if kind == "features":
            nets = net_in_use(place.lake, place.root)
            known = dict.fromkeys((nets.fingerprint, *nets.before, *nets.lacks))
            net = next((one for one in before if one in known), nets.fingerprint) or ALL
            self._others = tuple(one for one in known if one != net)
        self._found: list[Delivered] = delivered_by_partner(place.lake, place.root, fingerprint=net)
        if not self._found:
            raise ConfigError(
                f"nothing is delivered under {place.where}",
                "there is no folder SHIPMENT/PARTNER with features",
                "name the root of a set, or wait until it is delivered",
            )
        self.dim, self.kind = self._found[0].dim, kind
        if bool(self.dim) != (kind == "features"):
            has, other = ("features", "--features") if self.dim else ("images", "--images")
            raise ConfigError(f"{place.where} holds {has}", f"{kind} are asked for", f"use {other} {place.where}")
        self.column = FEATURES if self.dim else IMAGE

    @property
    def where(self) -> str:
        """As a person named it."""
        return self.place.where

    @property
    def archive(self) -> ArchiveFile | None:
        """None: a root is no archive."""
        return None

    def beside(self, _: Words) -> Beside:
        """Nothing: whatever is delivered is a row."""
        return Beside()

    @property
    def shipments(self) -> dict[str, list[str]]:
        """By partner, as text."""
        return {str(one.partner): list(one.names) for one in self._found}

    def tables(self) -> Iterator[pa.Table]:
        """The rows, by partner and unsigned item, each time in the same order; features as float32.

        Raises FormatError for a file that is damaged or gone.
        """
        wanted = pa.list_(pa.field("element", pa.float32(), nullable=False), self.dim) if self.dim else None
        for table in newest_rows(self._found):
            if wanted is not None and table.schema.field(FEATURES).type != wanted:
                at = table.schema.get_field_index(FEATURES)
                table = table.set_column(at, FEATURES, table[FEATURES].cast(wanted))
            yield table

    def keys(self) -> Keys:
        """Reads every row once; nothing of what was delivered stays in memory."""
        read = _ReadKeys(self.column)
        for table in self.tables():
            read.add(table)
        made = read.made()
        return replace(made, **self._other_items(made)) if self._others else made

    def _other_items(self, made: Keys) -> dict[str, Any]:
        """Items that have features of other nets alone.  Reads all of these."""
        pairs = np.zeros((0, 2), np.uint64)
        for net in self._others:
            for table in newest_rows(delivered_by_partner(self.place.lake, self.place.root, fingerprint=net)):
                ids = (table["partner_id"].to_numpy().astype(np.uint64), table["item_id"].to_numpy().view(np.uint64))
                pairs = np.unique(np.concatenate([pairs, np.stack(ids, axis=1)]), axis=0)
        partners, items = pairs[:, 0].astype(np.int64), pairs[:, 1]
        both = numbered(np.concatenate([made.partners, partners]), np.concatenate([made.items, items]))
        alone = ~np.isin(both[len(made) :], both[: len(made)])
        return {"other_partners": partners[alone], "other_items": items[alone]}

    def reasons(self, partners: NDArray[np.int64], items: NDArray[np.uint64]) -> Counter[str]:
        """Why these items have no feature: the reason of the newest failure, "not delivered" where there is none."""
        return _reasons(self.place, partners, items)


class _ReadKeys:
    def __init__(self, column: str) -> None:
        self._column = column
        self._partners, self._items = array("q"), array("Q")
        self._content, self._value = array("Q"), array("Q")
        self._prints: dict[str, tuple[int, str]] = {}
        self._codes = array("i")
        self._bytes = 0

    def add(self, table: pa.Table) -> None:
        self._partners.frombytes(table["partner_id"].to_numpy().astype(np.int64).tobytes())
        self._items.frombytes(table["item_id"].to_numpy().view(np.uint64).tobytes())
        self._content.frombytes(word_of(table["content_sha256"]).tobytes())
        values = values_of(table[self._column])
        self._value.extend(int.from_bytes(hashlib.sha256(value).digest()[:8], "little") for value in values)
        self._bytes += sum(map(len, values))
        for print_, shipment in zip(table["fingerprint"].to_pylist(), table["shipment"].to_pylist(), strict=True):
            code, newest = self._prints.get(print_, (len(self._prints), ""))
            self._prints[print_] = code, max(newest, shipment)
            self._codes.append(code)

    def made(self) -> Keys:
        ordered = sorted(self._prints, key=lambda one: self._prints[one][1], reverse=True)
        place = np.zeros(len(ordered), np.int32)
        place[[self._prints[one][0] for one in ordered]] = np.arange(len(ordered), dtype=np.int32)
        return Keys(
            np.array(self._partners, np.int64),
            np.array(self._items, np.uint64),
            np.array(self._content, np.uint64),
            np.array(self._value, np.uint64),
            place[np.array(self._codes, np.int64)],
            tuple(ordered),
            self._bytes,
        )


def word_of(digests: pa.ChunkedArray) -> Words:
    """The first 64 bits of digests of 32 bytes."""
    return np.array([int.from_bytes(one[:8], "little") for one in digests.to_pylist()], np.uint64)


def values_of(column: pa.ChunkedArray) -> list[memoryview | bytes]:
    """Each image, or each vector's bytes as float32."""
    if not pa.types.is_fixed_size_list(column.type):
        images: list[memoryview | bytes] = column.to_pylist()
        return images
    matrix = column.combine_chunks().flatten().to_numpy().astype("<f4", copy=False)
    size = column.type.list_size
    return [matrix[at : at + size].data.cast("B") for at in range(0, len(matrix), size)]


def _reasons(place: Place, partners: NDArray[np.int64], items: NDArray[np.uint64]) -> Counter[str]:
    found: Counter[str] = Counter()
    folders = by_partner(place.lake, place.root)
    for partner in np.unique(partners).tolist():
        wanted = np.sort(items[partners == partner])
        known: dict[int, str] = {}
        for name in folders.get(partner, ()):  # ascending: the newest holds
            folder = place.root.partner(name, partner)
            try:
                files = [file.name for file in delta(place.lake, place.root, name, partner).files]
            except NotFound:
                continue
            for file in filter(is_failures, files):
                known.update(_failures_of(place.lake, f"{folder}/{file}", wanted))
        found.update(known.values())
        found["not delivered"] += len(wanted) - len(known)
    return Counter({reason: count for reason, count in found.items() if count})


def _failures_of(lake: Lake, path: str, wanted: Words) -> Iterator[tuple[int, str]]:
    try:
        with lake.open(path) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(4096, columns=["item_id", "reason"], use_threads=False):
                items = batch.column("item_id").to_numpy().view(np.uint64)
                mine = np.flatnonzero(np.isin(items, wanted))
                yield from zip(
                    items[mine].tolist(), batch.column("reason").take(pa.array(mine)).to_pylist(), strict=True
                )
    except ARROW_ERRORS as error:
        raise FormatError("a file of failures is damaged", f"{path}: {damage_of(error)}", "hathi verify") from error
