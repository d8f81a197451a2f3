"""What a dataset is made of, whether a lake delivers it or an archive holds it: rows in one order, read twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.training.dataset.manifest import ArchiveFile, Kind

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Keys:
    """Of each row: partner int64, item uint64, 64 bits of the SHA-256 of what was fetched and of what was delivered,
    and the place of its fingerprint among `prints`, the newest first.  bytes: of all that was delivered.
    """

    partners: NDArray[np.int64]
    items: NDArray[np.uint64]
    content: Words
    value: Words
    fingerprints: NDArray[np.int32]
    prints: tuple[str, ...]
    bytes: int
    other_partners: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    other_items: Words = field(default_factory=lambda: np.zeros(0, np.uint64))
    """Items without a row that have features of another net."""

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Beside:
    """Entries that are no rows and that no row of the labels names.

    rejected: by reason; again: pictures that stand under their label already.
    """

    rejected: Counter[str] = field(default_factory=Counter)
    again: int = 0
    warnings: tuple[str, ...] = ()


class Origin(Protocol):
    """Rows of images or features.

    where: as a person named it.  dim: numbers of a feature, 0 for images.  shipments: by partner, as text; archive: the
    file that they come from, if they do.
    """

    @property
    def where(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def dim(self) -> int: ...
    @property
    def shipments(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def archive(self) -> ArchiveFile | None: ...

    def tables(self) -> Iterator[pa.Table]:
        """The rows, each time in the same order, with the columns partner_id, item_id, external_id, content_sha256,
        fingerprint and image or features."""

    def keys(self) -> Keys:
        """Of all rows, in the order of `tables`."""

    def reasons(self, partners: NDArray[np.int64], items: Words) -> Counter[str]:
        """Why these items have no row."""

    def beside(self, items: Words) -> Beside:
        """What is no row.  items: that rows of the labels name."""
