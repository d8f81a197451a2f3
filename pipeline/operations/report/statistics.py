"""What the delivered features look like, from a sample: small and cheap.  `hathi stats` looks closer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
from pyarrow import parquet as pq

from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.codec.shards import Matrix
from pipeline.errors import FormatError
from pipeline.operations.report.facts import SetStatistics

VALUES = 2**20
"""A set's sample has about so many values (4 MB),"""
ROWS = 4096
"""and so many rows at the most,"""
FILES = 4
"""from so many files."""
BINS = 32


@dataclass
class Sample:
    """Rows of one set and one fingerprint, as they come."""

    set: str
    fingerprint: str
    engine: str
    dim: int
    features: int = 0
    preprocessing: str = ""
    files: int = 0
    parts: list[Matrix] = field(default_factory=list)

    @property
    def wants(self) -> int:
        """Rows of a further file; 0 when there are enough."""
        if self.files >= FILES or not self.dim:
            return 0
        most = max(1, min(ROWS, VALUES // self.dim))
        return min(-(-most // FILES), most - sum(len(part) for part in self.parts))

    def add(self, stream: BinaryIO, shipment: str) -> None:
        """The first rows of a delivered file; one row group of it in memory.  Raises FormatError when it is damaged."""
        try:
            file = pq.ParquetFile(stream)
            rows = next(file.iter_batches(self.wants, row_groups=[0], columns=["features"], use_threads=False), None)
        except ARROW_ERRORS as error:
            raise FormatError(
                "a file of features is damaged", f"{shipment}: {damage_of(error)}", "hathi verify"
            ) from error
        self.files += 1
        if rows is not None and rows.schema.field("features").type.list_size == self.dim:
            values = rows.column("features").flatten().to_numpy().astype(np.float32, copy=False)
            self.parts.append(values.reshape(-1, self.dim))

    def told(self) -> SetStatistics:
        """The sample in figures; rows that are not finite are counted and left out of the rest."""
        matrix = np.concatenate(self.parts) if self.parts else np.zeros((0, max(self.dim, 1)), np.float32)
        finite = np.isfinite(matrix).all(axis=1)
        good = matrix[finite]
        if not len(good):
            return SetStatistics(
                self.set,
                self.fingerprint,
                self.engine,
                self.dim,
                self.features,
                len(matrix),
                not_finite=len(matrix),
                preprocessing=self.preprocessing,
            )
        norms = np.linalg.norm(good.astype(np.float64), axis=1)
        low, high = float(good.min()), float(good.max())
        counts, _ = np.histogram(good, bins=BINS, range=(low, high if high > low else low + 1.0))
        return SetStatistics(
            self.set,
            self.fingerprint,
            self.engine,
            self.dim,
            self.features,
            len(matrix),
            (float(norms.min()), float(np.median(norms)), float(norms.max())),
            float((good == 0).mean()),
            int((~finite).sum()),
            int((~good.any(axis=0)).sum()),
            len(good) - len({row.tobytes() for row in good}),
            tuple(int(one) for one in counts),
            (low, high),
            self.preprocessing,
        )
