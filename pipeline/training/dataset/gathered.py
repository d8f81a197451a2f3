"""Pictures of an archive as a dataset is made of them: kept on the local disk until their sides are known.

Labels come from folders (`label/picture`), or from a table that names the pictures.  One folder above all of them is
taken off; where the folders above the labels are called train, validation and test, they are the sides.  Pictures of
one label with equal bytes count once; what is no picture is kept by its reason.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.amounts import counted
from pipeline.codec.refs.rows import sample_of
from pipeline.codec.shards import IMAGE
from pipeline.records import item_id_as_written
from pipeline.training.dataset.labels import Labels
from pipeline.training.dataset.manifest import ArchiveFile, Kind
from pipeline.training.dataset.origin import Beside, Keys, Words

NONE = -1
NO_LABEL, TOO_DEEP, DUPLICATE_NAME, NOT_THERE = "no_label", "too_deep", "duplicate_name", "not in the archive"
SIDE_OF = {"train": "train", "training": "train", "val": "validation", "valid": "validation",
           "validation": "validation", "test": "test", "testing": "test"}  # fmt: skip
"""Folders that are sides, in any letter case."""
_HELD = 16 * 2**20
_SCHEMA = pa.schema([("external_id", pa.string()), ("content_sha256", pa.binary(32)), (IMAGE, pa.binary())])

Path_ = tuple[str, ...]


class Kept(NamedTuple):
    """A picture.  path: folders and name.  content: as it is kept.  sha256: of what the archive has."""

    path: Path_
    content: bytes
    sha256: bytes


@dataclass(frozen=True)
class Layout:
    """What folders mean.  top: a folder that is taken off each path, "" for none; sides: whether the next is a side."""

    top: str = ""
    sides: bool = False

    def of(self, folders: Path_) -> tuple[str, str, str]:
        """Label, side ("" for none) and, where there is no label, the reason."""
        if self.top and folders[:1] != (self.top,):
            return "", "", TOO_DEEP if len(folders) > 1 else NO_LABEL
        rest = folders[1:] if self.top else folders
        side = SIDE_OF.get(rest[0].lower(), "") if self.sides and rest else ""
        if self.sides:
            rest = rest[1:] if side else ()
        if len(rest) != 1:
            return "", "", TOO_DEEP if rest else NO_LABEL
        return rest[0], side, ""


def layout_of(folders: Mapping[Path_, int]) -> Layout:
    """The layout in which most pictures have a label, of several the plainest.  folders: with their pictures."""
    tops: Counter[str] = Counter()
    for one, count in folders.items():
        if len(one) > 1:
            tops[one[0]] += count
    top = min(tops, key=lambda one: (-tops[one], one), default="")
    found = [Layout()]
    found += [Layout(top)] if top else []
    found += [Layout(above, True) for above in ("", top) if len(_sides(folders, above)) > 1]

    def labelled(layout: Layout) -> int:
        return sum(count for one, count in folders.items() if not layout.of(one)[2])

    return max(reversed(found), key=lambda one: (labelled(one), -found.index(one)))


def _sides(folders: Mapping[Path_, int], top: str) -> set[str]:
    """The sides that folders of labels lie in."""
    rests = [one[1:] if top and one[:1] == (top,) else one for one in folders]
    return {SIDE_OF[one[0].lower()] for one in rests if len(one) == 2 and one[0].lower() in SIDE_OF}


class Gathering:
    """Pictures on their way into a folder of ours."""

    def __init__(self, folder: Path, *, named: bool) -> None:
        """named: a table will name the pictures, so the names of what is none are kept."""
        self._keeps_names = named
        self._path = folder / "pictures"
        self._file = pa.OSFile(str(self._path), "wb")
        self._writer = pa.ipc.new_stream(self._file, _SCHEMA)
        self._waiting: list[Kept] = []
        self._held = self._bytes = 0
        self._folders: dict[Path_, int] = {}
        self._codes = array("i")
        self._content, self._value = array("Q"), array("Q")
        self._rejected: Counter[str] = Counter()
        self._by_name: dict[str, str] = {}

    def take(self, one: Kept) -> None:
        """A picture."""
        self._codes.append(self._folders.setdefault(one.path[:-1], len(self._folders)))
        self._content.append(_word(one.sha256))
        self._value.append(_word(hashlib.sha256(one.content).digest()))
        self._waiting.append(one)
        self._held += len(one.content)
        self._bytes += len(one.content)
        if self._held >= _HELD:
            self._put()

    def reject(self, path: Path_, reason: str) -> None:
        """An entry that is no picture.  path: () for none that a table could name."""
        self._rejected[reason] += 1
        if path and self._keeps_names:
            self._by_name.setdefault("/".join(path), reason)

    def _put(self) -> None:
        if self._waiting:
            columns = [["/".join(one.path) for one in self._waiting], [one.sha256 for one in self._waiting],
                       [one.content for one in self._waiting]]  # fmt: skip
            self._writer.write_table(pa.table(columns, schema=_SCHEMA))
        self._waiting, self._held = [], 0

    def done(self, where: str, archive: ArchiveFile) -> Gathered:
        """What was gathered, to be read."""
        self._put()
        self._writer.close()
        self._file.close()
        return Gathered(
            self._path, where, archive, tuple(self._folders), np.array(self._codes, np.int64),
            np.array(self._content, np.uint64), np.array(self._value, np.uint64), self._bytes, self._rejected,
            self._by_name,
        )  # fmt: skip


class Gathered:
    """An `origin.Origin` of the pictures of an archive.  `by_folders` or `by_table` first says which rows stand."""

    kind: Kind = "images"
    dim = 0
    shipments: Mapping[str, Sequence[str]] = {}

    def __init__(
        self, path: Path, where: str, archive: ArchiveFile, folders: tuple[Path_, ...], codes: NDArray[np.int64],
        content: Words, value: Words, size: int, rejected: Counter[str], by_name: Mapping[str, str],
    ) -> None:  # fmt: skip
        self._path, self.where, self.archive = path, where, archive
        self._folders, self._codes, self._content, self._value, self._bytes = folders, codes, content, value, size
        self._rejected, self._by_name = Counter(rejected), by_name
        counts = np.bincount(codes, minlength=len(folders)).tolist()
        self.layout = layout_of(dict(zip(folders, counts, strict=True)))
        self._stands = np.ones(len(codes), np.bool_)
        self._items = np.zeros(0, np.uint64)
        self._duplicates = 0
        self._warnings: tuple[str, ...] = ()
        self._named = False

    def __len__(self) -> int:
        return len(self._codes)

    def by_folders(self) -> Labels:
        """The labels that folders say, a row for each picture that stands."""
        self._items = self._items_without(self.layout.top)
        told = [self.layout.of(one) for one in self._folders]
        for reason in (NO_LABEL, TOO_DEEP):
            mine = np.array([one[2] == reason for one in told], np.bool_)[self._codes] & self._stands
            self._rejected[reason] += int(mine.sum())
            self._stands &= ~mine
        self._names_once()
        names = sorted({label for label, _, reason in told if not reason})
        sides = sorted({side for _, side, _ in told if side})
        label_of = np.array([names.index(label) if not reason else NONE for label, _, reason in told], np.int32)
        side_of = np.array([sides.index(side) if side else NONE for _, side, _ in told], np.int32)
        self._once(label_of, np.array([side != "train" for _, side, _ in told], np.int32))
        labels, items = label_of[self._codes][self._stands], self._items[self._stands]
        return Labels(
            np.zeros(len(items), np.int64), items, labels, side_of[self._codes][self._stands], tuple(names),
            tuple(sides), 0, (), (),
        )  # fmt: skip

    def _names_once(self) -> None:
        """Of pictures of one name the first stays."""
        rows = np.flatnonzero(self._stands)
        again = np.ones(len(rows), np.bool_)
        again[np.unique(self._items[rows], return_index=True)[1]] = False
        self._stands[rows[again]] = False
        self._rejected[DUPLICATE_NAME] += int(again.sum())

    def _once(self, label_of: NDArray[np.int32], later: NDArray[np.int32]) -> None:
        """Of pictures with equal bytes under one label the first stays.  later: 1 for folders after all."""
        rows = np.flatnonzero(self._stands)
        labels, content = label_of[self._codes[rows]], self._content[rows]
        order = np.lexsort((rows, later[self._codes[rows]], labels, content))
        again = np.zeros(len(rows), np.bool_)
        same = content[order][1:] == content[order][:-1]
        again[order[1:]] = same & (labels[order][1:] == labels[order][:-1])
        self._stands[rows[again]] = False
        self._duplicates = int(again.sum())
        two = len(np.unique(content[order][1:][same & (labels[order][1:] != labels[order][:-1])]))
        if two:
            pictures = counted(two, "picture")
            self._warnings = (f"{pictures} {'stands' if two == 1 else 'stand'} under more than one label",)

    def by_table(self, labels: Labels) -> Labels:
        """The labels of a table, whose names are the archive's, with the folder above all of them or without it."""
        self._named = True
        self.layout, self._items = Layout(), self._items_without("")
        tops = {one[:1] for one in self._folders}
        if len(tops) == 1 and tops != {()}:
            (top,) = next(iter(tops))
            below = self._items_without(top)
            if np.isin(below, labels.items).sum() > np.isin(self._items, labels.items).sum():
                self._items, self.layout = below, Layout(top)
        self._names_once()
        return labels

    def _items_without(self, top: str) -> Words:
        found = array("Q")
        for batch in self._batches(["external_id"]):
            for name in batch["external_id"].to_pylist():
                found.append(item_id_as_written(_without(name, top)))
        return np.array(found, np.uint64)

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with pa.memory_map(str(self._path)) as source:
            for batch in pa.ipc.open_stream(source):
                yield batch.select(columns)

    # --- as an origin ---

    def keys(self) -> Keys:
        """Of the pictures that stand."""
        stands = self._stands
        count = int(stands.sum())
        zeros = np.zeros(count, np.int32)
        return Keys(
            zeros.astype(np.int64), self._items[stands], self._content[stands], self._value[stands], zeros, ("",),
            self._bytes,
        )  # fmt: skip

    def tables(self) -> Iterator[pa.Table]:
        """The pictures that stand, in the archive's order."""
        first = 0
        for batch in self._batches(_SCHEMA.names):
            last = first + len(batch)
            mine = np.flatnonzero(self._stands[first:last])
            some = pa.Table.from_batches([batch]).take(pa.array(mine))
            names = [_without(name, self.layout.top) for name in some["external_id"].to_pylist()]
            yield pa.table(
                {
                    "partner_id": np.zeros(len(mine), np.int64),
                    "item_id": self._items[first:last][mine].view(np.int64),
                    "external_id": pa.array(names, pa.string()),
                    "content_sha256": some["content_sha256"],
                    "fingerprint": pa.array([""] * len(mine)),
                    IMAGE: some[IMAGE],
                }
            )
            first = last

    def reasons(self, _: NDArray[np.int64], items: Words) -> Counter[str]:
        """Why a table's items have no picture."""
        known = self._reasons_by_item()
        return Counter(known.get(item, NOT_THERE) for item in items.tolist())

    def beside(self, items: Words) -> Beside:
        """Entries that are no pictures and that no row names."""
        rejected = Counter(self._rejected)
        if self._named:
            known = self._reasons_by_item()
            rejected.subtract(known[item] for item in items.tolist() if item in known)
        return Beside(+rejected, self._duplicates, self._warnings)

    def _reasons_by_item(self) -> dict[int, str]:
        """Of entries that are no pictures, without those whose name a picture has."""
        found = {item_id_as_written(_without(name, self.layout.top)): why for name, why in self._by_name.items()}
        for item in np.intersect1d(np.array(list(found), np.uint64), self._items).tolist():
            del found[item]
        return found

    def labels_named(self, most: int) -> str:
        """Some of the folders, for people."""
        some = [sample_of("/".join(one)) for one in self._folders[:most]]
        return ", ".join(some) + (f" and {len(self._folders) - most} more" if len(self._folders) > most else "")


def _word(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "little")


def _without(name: str, top: str) -> str:
    return name.removeprefix(f"{top}/") if top else name
