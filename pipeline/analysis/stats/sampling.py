"""Bounded samples by hash: two runs choose the same items, so that what they have in common can be compared.

Source of the idea: distinct sampling (Gibbons 2001) and bottom-k sketches (Cohen and Kaplan 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import mmh3
import numpy as np
import numpy.typing as npt

from pipeline.codec.shards import Matrix

Hashes = npt.NDArray[np.uint64]
KEPT_HASHES = 2**21
"""So many rows are told apart exactly; of more, those of a part of the hashes are."""
SAMPLE_ITEMS = 20_000
SAMPLE_BYTES = 64 * 2**20
"""Items whose vectors are kept for a comparison: so many, and no more bytes than that."""


def item_hashes(partner_id: npt.NDArray[np.int64], item_id: npt.NDArray[np.uint64]) -> Hashes:
    """Sixty-four mixed bits for each (partner, item); the finaliser of SplitMix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        mixed = item_id + (partner_id.view(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def vector_hashes(matrix: Matrix) -> Hashes:
    """Sixty-four bits of each row's bytes; 0.0 and -0.0 are one."""
    rows = np.ascontiguousarray(matrix + np.float32(0))
    return np.array([mmh3.hash64(row.tobytes(), signed=False)[0] for row in rows], np.uint64)


@dataclass(frozen=True)
class Repeated:
    """How many rows repeat an earlier one."""

    rows: int
    exact: bool
    """False: estimated from a part of the rows, chosen by hash."""


class Repeats:
    """Counts rows whose hash was seen before, in bounded memory."""

    def __init__(self, limit: int = KEPT_HASHES) -> None:
        self._limit = limit
        self._halvings = 0
        self._kept: list[Hashes] = []
        self._held = self._rows = 0

    def add(self, hashes: Hashes) -> None:
        self._rows += len(hashes)
        mine = self._chosen(hashes)
        self._kept.append(mine)
        self._held += len(mine)
        while self._held > self._limit and self._halvings < 63:
            self._halvings += 1
            self._kept = [self._chosen(np.concatenate(self._kept))]
            self._held = len(self._kept[0])

    def repeated(self) -> Repeated:
        kept = np.concatenate(self._kept) if self._kept else np.zeros(0, np.uint64)
        again = len(kept) - len(np.unique(kept))
        if not self._halvings:
            return Repeated(again, True)
        return Repeated(round(again / max(1, len(kept)) * self._rows), False)

    def _chosen(self, hashes: Hashes) -> Hashes:
        return hashes if not self._halvings else hashes[hashes < np.uint64(2 ** (64 - self._halvings))]


class Sample:
    """The items of the least hashes, with their vectors; of an item's several rows the one that came last."""

    def __init__(self, dim: int, items: int = SAMPLE_ITEMS) -> None:
        self._limit = max(1, min(items, SAMPLE_BYTES // max(1, 4 * dim)))
        self._hashes: list[Hashes] = [np.zeros(0, np.uint64)]
        self._vectors: list[Matrix] = [np.zeros((0, dim), np.float32)]
        self._waiting = 0
        self._below: np.uint64 | None = None

    def add(self, hashes: Hashes, matrix: Matrix) -> None:
        """hashes (rows,), matrix (rows, dim)."""
        some = np.ones(len(hashes), np.bool_) if self._below is None else hashes <= self._below
        if some.any():
            self._hashes.append(hashes[some])
            self._vectors.append(matrix[some])
            self._waiting += int(some.sum())
        if self._waiting > self._limit:
            self._settle()

    def _settle(self) -> None:
        """Sorted by hash, each once, not more than the limit."""
        hashes = np.concatenate(self._hashes)
        order = np.argsort(hashes, kind="stable")
        last = np.append(hashes[order][1:] != hashes[order][:-1], True)[: len(order)]
        chosen = order[last][: self._limit]
        if int(last.sum()) >= self._limit:
            self._below = hashes[chosen[-1]]
        self._hashes, self._vectors = [hashes[chosen]], [np.concatenate(self._vectors)[chosen]]
        self._waiting = 0

    def common(self, other: Sample) -> tuple[Matrix, Matrix]:
        """The vectors, (n, dim) each, of the items that both samples hold."""
        self._settle()
        other._settle()
        _, mine, theirs = np.intersect1d(self._hashes[0], other._hashes[0], assume_unique=True, return_indices=True)
        return self._vectors[0][mine], other._vectors[0][theirs]
