"""What a dataset is made of: rows of labels and images, of the lake and of a dataset that is extended."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.training.dataset import joining
from pipeline.training.dataset.classes import numbers_of
from pipeline.training.dataset.earlier import Earlier
from pipeline.training.dataset.joining import NONE, Joined, Rows
from pipeline.training.dataset.labels import Labels
from pipeline.training.dataset.law import law_of
from pipeline.training.dataset.manifest import Law
from pipeline.training.dataset.origin import Keys, Origin

OTHER_NET = "another fingerprint"

Words = NDArray[np.uint64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Material:
    """Images are the delivered rows that count, then those of the earlier dataset that nothing delivered replaces.

    standing: places of those delivered rows; alone: places of those rows of the earlier dataset.
    table: rows of the labels, then of the earlier dataset.  names: of labels by code.
    """

    labels: Labels
    keys: Keys
    earlier: Earlier | None
    standing: Places
    alone: Places
    table: Rows
    images: Rows
    names: tuple[str, ...]

    @property
    def before(self) -> int:
        """Rows of the earlier dataset."""
        return 0 if self.earlier is None else len(self.earlier)

    @property
    def words(self) -> tuple[Words, Words]:
        """64 bits of the SHA-256 of each image: of what was fetched, and of what was delivered."""
        content, value = self.keys.content[self.standing], self.keys.value[self.standing]
        if self.earlier is None:
            return content, value
        alone = self.alone
        return np.concatenate([content, self.earlier.content[alone]]), np.concatenate(
            [value, self.earlier.value[alone]]
        )

    @property
    def bytes(self) -> int:
        """Of all images, about."""
        return self.keys.bytes + (0 if self.earlier is None else self.earlier.bytes)

    def numbers(self, joined: Joined) -> dict[str, int]:
        """The number of each class that has an example, and of those that the earlier dataset has."""
        used = np.unique(joined.labels[joined.labels != NONE]).tolist()
        before = {} if self.earlier is None else self.earlier.manifest.classes
        return numbers_of((self.names[code] for code in used), {name: int(at) for at, name in before.items()})

    def fingerprints(self, joined: Joined) -> dict[str, int]:
        """Examples by fingerprint."""
        found: Counter[str] = Counter()
        chosen = joined.labels != NONE
        count = len(self.standing)
        parts = [(self.keys.prints, self.keys.fingerprints[self.standing][chosen[:count]])]
        if self.earlier is not None:
            parts.append((tuple(self.earlier.manifest.fingerprints), self.earlier.prints[self.alone][chosen[count:]]))
        for names, codes in parts:
            for code, number in enumerate(np.bincount(codes, minlength=len(names)).tolist()):
                found[names[code]] += number
        return {name: number for name, number in sorted(found.items()) if number}


def material_of(labels: Labels, keys: Keys, earlier: Earlier | None, *, one_net: bool) -> Material:
    """one_net: images of one fingerprint count: of the earlier dataset's, else of what the origin reads."""
    standing = np.arange(len(keys))
    if one_net:
        known = next(iter(earlier.manifest.fingerprints), "") if earlier is not None else keys.prints[0]
        wanted = keys.prints.index(known) if known in keys.prints else NONE
        standing = np.flatnonzero(keys.fingerprints == wanted)
    partners, items = keys.partners[standing], keys.items[standing]
    names = {name: code for code, name in enumerate(labels.names)}
    table = Rows(labels.partners, labels.items, labels.labels, labels.sides)
    alone = np.zeros(0, np.int64)
    if earlier is not None:
        both = joining.numbered(np.concatenate([partners, earlier.partners]), np.concatenate([items, earlier.items]))
        alone = np.flatnonzero(~np.isin(both[len(partners) :], both[: len(partners)]))
        table = _with(table, earlier, names)
        partners = np.concatenate([partners, earlier.partners[alone]])
        items = np.concatenate([items, earlier.items[alone]])
    none = np.full(len(items), NONE, np.int32)
    return Material(labels, keys, earlier, standing, alone, table, Rows(partners, items, none, none), tuple(names))


def _with(table: Rows, earlier: Earlier, names: dict[str, int]) -> Rows:
    """The rows of the earlier dataset behind those of the table; names: of labels, to which its own are added."""
    codes = {int(number): names.setdefault(name, len(names)) for number, name in earlier.manifest.classes.items()}
    labels = np.array([codes[label] for label in earlier.labels.tolist()], np.int32)
    return Rows(
        np.concatenate([table.partners, earlier.partners]),
        np.concatenate([table.items, earlier.items]),
        np.concatenate([table.labels, labels]),
        np.concatenate([table.sides, np.full(len(earlier), NONE, np.int32)]),
    )


def law_for(material: Material, joined: Joined, origin: Origin) -> Law:
    """What became of every row.  Reads failures of the items that have no image.  Raises LawBroken."""
    table, keys = material.table, material.keys
    lacking = joined.without_image
    partners, items = table.partners[lacking], table.items[lacking]
    without: Counter[str] = Counter()
    hidden = np.setdiff1d(np.arange(len(keys)), material.standing)
    unnamed = 0
    others = np.concatenate([keys.partners[hidden], keys.other_partners])
    if len(others):
        numbers = joining.numbered(
            np.concatenate([partners, others, table.partners]),
            np.concatenate([items, keys.items[hidden], keys.other_items, table.items]),
        )
        mine, theirs, named = np.split(numbers, [len(items), len(items) + len(others)])
        there = np.isin(mine, theirs)
        unnamed = int((~np.isin(theirs, named)).sum())
        without[OTHER_NET] = int(there.sum()) + unnamed
        partners, items = partners[~there], items[~there]
    if len(items):
        without.update(origin.reasons(partners, items))
    beside = origin.beside(np.unique(table.items))
    without.update(beside.rejected)
    without_label = dict(joined.without_label)
    if material.labels.rejected:
        without_label[joining.UNREADABLE] = material.labels.rejected
    rows = len(table) + material.labels.rejected + joined.without_label.get(joining.UNNAMED, 0) + unnamed
    rows += beside.rejected.total() + beside.again
    duplicates = sum((joined.duplicates, beside.again))
    without_image = {reason: count for reason, count in without.items() if count}
    return law_of(rows, joined.examples, without_image, without_label, duplicates)
