"""The nearest rows of a catalogue: by looking at every one, or by an index and then exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.analysis.similar.catalogue import Catalogue
from pipeline.analysis.similar.measures import Metric, distances
from pipeline.errors import ConfigError

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Query:
    """What is looked for.  fingerprint: only rows of it are comparable.  item_id: left out of what is found."""

    vector: Vector
    fingerprint: str
    metric: Metric
    count: int
    item_id: int | None = None


@dataclass(frozen=True)
class Near:
    """One item that is near.  row: in the catalogue."""

    item_id: int
    distance: float
    row: int


@dataclass(frozen=True)
class Found:
    """The nearest, the nearest first; equal distances by item id."""

    nearest: tuple[Near, ...]
    compared: int
    left_out: int
    """Items whose features are of another net."""


def exact(catalogue: Catalogue, query: Query) -> Found:
    """Looks at every item's newest feature, a block at a time."""
    rows = np.zeros(0, np.int64)
    far = np.zeros(0, np.float64)
    compared = left_out = 0
    for places, block in catalogue.blocks():
        newest = catalogue.wins[places]
        same = np.array([text == query.fingerprint for text in block.fingerprint])
        left_out += int((newest & ~same).sum())
        some = newest & same
        if query.item_id is not None:
            some &= block.item_id != np.uint64(query.item_id)
        if not some.any():
            continue
        _check(query, block.matrix.shape[1])
        compared += int(some.sum())
        rows = np.concatenate([rows, places[some]])
        far = np.concatenate([far, distances(query.metric, query.vector, block.matrix[some])])
        keep = np.lexsort((catalogue.ids[rows], far))[: query.count]
        rows, far = rows[keep], far[keep]
    return Found(_named(catalogue, rows, far), compared, left_out)


def ranked(catalogue: Catalogue, query: Query, candidates: npt.NDArray[np.int64], compared: int) -> Found:
    """The nearest of some candidates (rows), by their exact distances."""
    rows = np.array([row for row in candidates.tolist() if catalogue.ids[row] != query.item_id], np.int64)
    compared -= len(candidates) - len(rows)
    if not len(rows):
        return Found((), compared, 0)
    matrix, _ = catalogue.features(rows.tolist())
    far = distances(query.metric, query.vector, matrix)
    keep = np.lexsort((catalogue.ids[rows], far))[: query.count]
    return Found(_named(catalogue, rows[keep], far[keep]), compared, 0)


def _named(catalogue: Catalogue, rows: npt.NDArray[np.int64], far: npt.NDArray[np.float64]) -> tuple[Near, ...]:
    pairs = zip(rows.tolist(), far.tolist(), strict=True)
    return tuple(Near(int(catalogue.ids[row]), distance, row) for row, distance in pairs)


def _check(query: Query, dim: int) -> None:
    if dim != len(query.vector):
        what = f"the query has {len(query.vector)} values, and the delivered features have {dim}"
        raise ConfigError("these features cannot be compared", what, "they are of two nets")
