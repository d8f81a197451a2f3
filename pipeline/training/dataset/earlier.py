"""A dataset that is extended: who stands in it on which side, and its examples again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.codec.shards import FEATURES, IMAGE
from pipeline.errors import ConfigError
from pipeline.training.dataset.delivered import values_of, word_of
from pipeline.training.dataset.manifest import Kind, Manifest, digest_of_manifest, read_manifest
from pipeline.training.dataset.shards import batches

_KEYS = ["label", "side", "partner_id", "item_id", "content_sha256", "fingerprint"]


@dataclass(frozen=True)
class Earlier:
    """Its rows, in its order.  labels: numbers; sides: places among its sides; prints: places among its fingerprints;
    content, value: as `delivered.Keys`.
    """

    folder: Path
    manifest: Manifest
    partners: NDArray[np.int64]
    items: NDArray[np.uint64]
    labels: NDArray[np.int32]
    sides: NDArray[np.int32]
    content: NDArray[np.uint64]
    value: NDArray[np.uint64]
    prints: NDArray[np.int32]
    bytes: int

    def __len__(self) -> int:
        return len(self.items)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of its manifest."""
        return digest_of_manifest(self.folder)

    def tables(self) -> Iterator[pa.Table]:
        """Its examples as `delivered.Deliveries.tables` has rows."""
        column = FEATURES if self.manifest.kind == FEATURES else "data"
        wanted = ["partner_id", "item_id", "external_id", "content_sha256", "fingerprint", column]
        for batch in batches(self.folder, columns=wanted):
            yield pa.Table.from_batches([batch]).select(wanted).rename_columns([*wanted[:-1], _column(column)])


def _column(column: str) -> str:
    return IMAGE if column == "data" else column


def read_earlier(folder: Path, kind: Kind, dim: int) -> Earlier:
    """Reads every example once.  Raises ConfigError for a dataset that `make` has not made, or of another kind."""
    found = read_manifest(folder)
    if found.split is None or not found.sides:
        raise ConfigError(
            f"the dataset {folder} cannot be extended", "it has no sides", "extend one that hathi dataset make has made"
        )
    if (found.kind, found.dim) != (kind, dim):
        has, asked = (f"{one} of {of} values" if of else str(one) for one, of in ((found.kind, found.dim), (kind, dim)))
        raise ConfigError(f"the dataset {folder} holds {has}", f"{asked} are delivered", "make a new dataset of them")
    names, prints = ({name: at for at, name in enumerate(some)} for some in (found.sides, found.fingerprints))
    column = FEATURES if kind == FEATURES else "data"
    parts: list[tuple[NDArray[np.generic], ...]] = []
    size = 0
    for batch in batches(folder, columns=[*_KEYS, column]):
        table = pa.Table.from_batches([batch])
        values = values_of(table[column])
        size += sum(map(len, values))
        parts.append(
            (
                table["partner_id"].to_numpy(),
                table["item_id"].to_numpy().view(np.uint64),
                table["label"].to_numpy(),
                np.array([names[side] for side in table["side"].to_pylist()], np.int32),
                word_of(table["content_sha256"]),
                np.array([int.from_bytes(hashlib.sha256(one).digest()[:8], "little") for one in values], np.uint64),
                np.array([prints[one] for one in table["fingerprint"].to_pylist()], np.int32),
            )
        )
    kinds = (np.int64, np.uint64, np.int32, np.int32, np.uint64, np.uint64, np.int32)
    columns = [[np.zeros(0, one), *(part[at] for part in parts)] for at, one in enumerate(kinds)]
    joined: list[NDArray[Any]] = [np.concatenate(column) for column in columns]
    partners, items, labels, sides, content, value, codes = joined
    return Earlier(folder, found, partners, items, labels, sides, content, value, codes, size)
