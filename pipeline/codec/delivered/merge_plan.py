"""Which rows of a shipment win: pure, over the key columns of all its shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FEATURE, RETRIABLE, FINAL = 0, 1, 2
"""Kinds of rows: the lesser wins."""

SAMPLES = 5

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of a shipment, in columns."""

    partner_id: npt.NDArray[np.int64]
    item_id: npt.NDArray[np.uint64]
    ordinal: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Winners:
    """Rows that are delivered; the others are duplicates of them.  Both are sorted by (partner, item, ordinal)."""

    features: Indices
    failures: Indices
    collided: npt.NDArray[np.bool_]
    """Which of the failures fail because their item id is another external id's as well."""
    duplicates: int
    alike: int = 0
    """Of the duplicates: those whose external id is written otherwise than that of the row that wins."""
    pairs: tuple[tuple[int, int], ...] = ()
    """The first of them, each with the row that wins."""


@dataclass(frozen=True, slots=True)
class Name:
    """Digests of a row's external id, normalised and as it is written; b"" where it has none."""

    normalised: bytes
    written: bytes


def choose(rows: Rows, names: Callable[[Indices], Sequence[Name]]) -> Winners:
    """The winners among rows of equal (partner, item).

    The feature of the greatest ordinal wins, else the retriable failure of the greatest ordinal, else the failure
    of the greatest ordinal.  Where the rows have different external ids, none has a feature: each external id keeps
    its row of the greatest ordinal as a failure.
    names: of some rows; one that has none agrees with any.
    """
    order = np.lexsort((-rows.ordinal, rows.kind, rows.item_id, rows.partner_id))
    item = _numbered(rows.partner_id[order], rows.item_id[order])
    first = _first_of_each(item)
    shared = np.bincount(item)[item] > 1 if len(item) else first
    alone, crowd, item = order[first], order[shared], item[shared]
    several = collided = np.zeros(0, np.int64)
    pairs: list[tuple[int, int]] = []
    duplicates = len(order) - len(alone)
    if len(crowd):
        named = names(crowd)
        several, collided = _collisions(crowd, item, named, rows.ordinal)
        pairs = _alike(crowd, item, named, set(several.tolist()))
        replaced = np.isin(alone, several)
        alone = alone[~replaced]
        duplicates += int(replaced.sum()) - len(collided)
    kinds = rows.kind[alone]
    failures = _sorted(rows, np.concatenate([alone[kinds != FEATURE], collided]))
    return Winners(
        _sorted(rows, alone[kinds == FEATURE]),
        failures,
        np.isin(failures, collided),
        duplicates,
        len(pairs),
        tuple(pairs[:SAMPLES]),
    )


def _collisions(
    crowd: Indices, items: Indices, names: Sequence[Name], ordinal: npt.NDArray[np.int64]
) -> tuple[Indices, Indices]:
    """The rows of items that have several names, and those of them that stand for their names."""
    latest: dict[int, dict[bytes, int]] = {}
    for row, item, written in zip(crowd.tolist(), items.tolist(), names, strict=True):
        known = latest.setdefault(item, {})
        name = written.normalised
        if name not in known or ordinal[known[name]] < ordinal[row]:
            known[name] = row
    collided = {item: known for item, known in latest.items() if len(known) - (b"" in known) > 1}
    several = crowd[np.isin(items, list(collided))]
    return several, np.array([row for known in collided.values() for row in known.values()], np.int64)


def _alike(crowd: Indices, items: Indices, names: Sequence[Name], several: set[int]) -> list[tuple[int, int]]:
    """Rows whose external id is that of the row that wins, but written otherwise; each with that row."""
    found: list[tuple[int, int]] = []
    winner, won, last = -1, Name(b"", b""), -1
    for row, item, name in zip(crowd.tolist(), items.tolist(), names, strict=True):
        if item != last:  # the first row of each item is the one that wins
            winner, won, last = row, name, item
        elif name.written and won.written and name.written != won.written and row not in several:
            found.append((row, winner))
    return found


def _numbered(*columns: npt.NDArray[np.generic]) -> Indices:
    """Sorted rows -> 0, 1, ... for each new combination of values."""
    new = np.zeros(len(columns[0]), np.bool_)
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.cumsum(new)


def _first_of_each(numbered: Indices) -> npt.NDArray[np.bool_]:
    first = np.ones(len(numbered), np.bool_)
    first[1:] = numbered[1:] != numbered[:-1]
    return first


def _sorted(rows: Rows, some: Indices) -> Indices:
    return some[np.lexsort((rows.ordinal[some], rows.item_id[some], rows.partner_id[some]))]
