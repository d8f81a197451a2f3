"""The rows of one shipment's shards: their keys all at once, the rest a row group of each shard at a time."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.codec.delivered.failures import held_detail
from pipeline.codec.delivered.merge_plan import FEATURE, FINAL, RETRIABLE, Indices, Name, Rows
from pipeline.codec.shards import FailureRow, FeatureRow, Keys, Matrix, Shard
from pipeline.records import ImageRef, normalise_external_id

COLLIDED = "another external id has the same item id"

_AT_ONCE = 4096
"""Rows whose places are Python's numbers at the same time."""
_NONE = np.zeros(0, np.int64)

Group = TypeVar("Group")


@dataclass(frozen=True)
class MergeInput:
    """What one batch yielded; ordinals are those of the shipment."""

    batch: int
    features: Path | None
    failures: Path | None
    held: tuple[ImageRef, ...] = ()


class Sources:
    """All rows of the inputs; a row is named by its index in `rows`."""

    def __init__(self, inputs: Sequence[MergeInput], dim: int) -> None:
        self._dim = dim
        self._origins: list[Shard | _HeldRefs] = []
        keys: list[Keys] = []
        kinds: list[npt.NDArray[np.int8]] = []
        for one in inputs:
            for path in (one.features, one.failures):
                if path is not None:
                    shard = Shard(path)
                    self._origins.append(shard)
                    keys.append(shard.keys())
                    failed = np.where(keys[-1].retriable, RETRIABLE, FINAL)
                    kinds.append(np.full_like(failed, FEATURE) if path is one.features else failed)
            if one.held:
                held = _HeldRefs(one.batch, one.held)
                self._origins.append(held)
                keys.append(held.keys())
                kinds.append(np.full(len(one.held), FINAL))
        self.rows = Rows(
            np.concatenate([_NONE, *(part.partner_id for part in keys)]),
            np.concatenate([_NONE.astype(np.uint64), *(part.item_id for part in keys)]),
            np.concatenate([_NONE, *(part.ordinal for part in keys)]),
            np.concatenate([_NONE, *kinds]).astype(np.int8),
        )
        self.shards = sum(one.features is not None for one in inputs)
        """Of features."""
        lengths = [len(kind) for kind in kinds]
        self._origin_of = np.repeat(np.arange(len(lengths)), lengths)
        self._place_of = np.concatenate([_NONE, *map(np.arange, lengths)])

    def features(self, some: Indices) -> Iterator[tuple[FeatureRow, npt.NDArray[np.float32]]]:
        """Rows that are features, with their vectors; quick where they come in the order of their keys."""
        groups = _Groups(self._features_of)
        for (rows, matrix), place in self._walk(some, groups):
            yield rows[place], matrix[place]

    def failures(self, some: Indices, collided: npt.NDArray[np.bool_]) -> Iterator[FailureRow]:
        """Rows as failures: as they are, or where they have collided, whatever they are, as `id_collision`."""
        groups = _Groups(self._failures_of)
        for (rows, place), hit in zip(self._walk(some, groups), collided.tolist(), strict=True):
            row = rows[place]
            yield replace(row, reason="id_collision", retriable=False, detail=COLLIDED, content=None) if hit else row

    def name_digests(self, some: Indices) -> list[Name]:
        """Digests of the rows' external ids."""
        return [_digests(name) for name in self.external_ids(some)]

    def external_ids(self, some: Indices) -> Iterator[str]:
        """The rows' external ids; "" where a row has none."""
        groups = _Groups(lambda origin, group: self._origins[origin].external_ids(group))
        return (names[place] for names, place in self._walk(some, groups))

    def _walk(self, some: Indices, groups: _Groups[Group]) -> Iterator[tuple[Group, int]]:
        """For each row its row group, read, and its place there."""
        for first in range(0, len(some), _AT_ONCE):
            part = some[first : first + _AT_ONCE]
            for origin, place in zip(self._origin_of[part].tolist(), self._place_of[part].tolist(), strict=True):
                starts = self._origins[origin].starts
                group = bisect_right(starts, place) - 1
                yield groups.read(origin, group), place - starts[group]

    def _features_of(self, origin: int, group: int) -> tuple[list[FeatureRow], Matrix]:
        shard = self._origins[origin]
        assert isinstance(shard, Shard)
        return shard.features(group, self._dim)

    def _failures_of(self, origin: int, group: int) -> list[FailureRow]:
        shard = self._origins[origin]
        if isinstance(shard, Shard) and shard.holds_features:
            return shard.as_failures(group, "id_collision", COLLIDED)
        return shard.failures(group)


class _Groups(Generic[Group]):
    """Keeps of each shard the row group that was read last."""

    def __init__(self, read: Callable[[int, int], Group]) -> None:
        self._read = read
        self._last: dict[int, tuple[int, Group]] = {}

    def read(self, origin: int, group: int) -> Group:
        held = self._last.get(origin)
        if held is None or held[0] != group:
            self._last.pop(origin, None)  # before the next one takes its memory
            held = self._last[origin] = (group, self._read(origin, group))
        return held[1]


class _HeldRefs:
    """Refs of a held batch, as a shard of one row group."""

    def __init__(self, batch: int, refs: Sequence[ImageRef]) -> None:
        self.starts = [0, len(refs)]
        self._rows = [
            FailureRow(partner_id, item_id, ordinal, external_id, url, "held", False, held_detail(batch))
            for partner_id, item_id, external_id, url, _, ordinal in refs
        ]

    def keys(self) -> Keys:
        return Keys(
            np.array([row.partner_id for row in self._rows], np.int64),
            np.array([row.item_id for row in self._rows], np.uint64),
            np.array([row.ordinal for row in self._rows], np.int64),
            np.zeros(len(self._rows), np.bool_),
        )

    def external_ids(self, group: int) -> list[str]:
        return [row.external_id for row in self._rows]

    def failures(self, group: int) -> list[FailureRow]:
        return self._rows


def _digests(external_id: str) -> Name:
    if not external_id:
        return Name(b"", b"")
    normalised = normalise_external_id(external_id)
    digest = _digest(normalised)
    return Name(digest, digest if normalised == external_id else _digest(external_id))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
