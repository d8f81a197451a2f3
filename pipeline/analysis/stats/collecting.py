"""Blocks of features -> what they look like: one pass, memory that does not grow with the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.amounts import counted
from pipeline.analysis.stats.buckets import Buckets
from pipeline.analysis.stats.sampling import Repeated, Repeats, Sample, item_hashes, vector_hashes
from pipeline.codec.delivered.blocks import Block, blocks
from pipeline.codec.shards import Matrix
from pipeline.errors import ConfigError, FormatError, NotFound
from pipeline.ledger.bodies import Body, read_body
from pipeline.ledger.layout import MANIFEST
from pipeline.ledger.values import Dim
from pipeline.stores.store import Lake

Values = npt.NDArray[np.float64]
NORM_TOLERANCE = 1e-3
"""A norm this near to 1 is that of a normalised feature (text rounds values to 1e-6)."""
_KEPT_NORMS = 65_536


@dataclass(frozen=True)
class Norms:
    """Euclidean lengths of the rows.  sample: every n-th of them."""

    least: float
    mean: float
    greatest: float
    not_one: int
    zero: int
    sample: Values

    @property
    def normalised(self) -> bool:
        """Most are 1: the set is normalised, and those that are not are odd."""
        return len(self.sample) > 0 and bool(np.mean(np.abs(self.sample - 1) <= NORM_TOLERANCE) > 0.5)


@dataclass(frozen=True)
class Stats:
    """What features look like.  Rows that are not finite are counted and left out of all else."""

    files: int
    rows: int
    not_finite: int
    dim: int
    fingerprints: dict[str, int]
    """Rows by fingerprint; "" where the files do not tell."""
    buckets: Buckets
    least: Values
    """(dim,), as those that follow: of each dimension."""
    greatest: Values
    mean: Values
    deviation: Values
    nonzero: npt.NDArray[np.int64]
    norms: Norms
    equal_items: Repeated
    equal_vectors: Repeated
    sample: Sample

    @property
    def finite(self) -> int:
        return self.rows - self.not_finite

    @property
    def nonzero_share(self) -> float:
        return float(self.nonzero.sum() / max(1, self.finite * self.dim))

    @property
    def always_zero(self) -> list[int]:
        """Dimensions that are zero in every row."""
        return np.flatnonzero(self.nonzero == 0).tolist() if self.finite else []

    @property
    def constant(self) -> list[int]:
        """Dimensions with one value in every row, which is not zero."""
        same = (self.least == self.greatest) & (self.nonzero > 0)
        return np.flatnonzero(same).tolist() if self.finite > 1 else []


def collect(lake: Lake, files: Iterable[str], partner: int | None = None) -> Stats:
    """The stats of files, read in the order given.

    Raises ConfigError where no row is left, FormatError for a damaged file or vectors of several lengths.
    """
    seen: _Collected | None = None
    number = 0
    for file in files:
        number += 1
        for block in _rows_of(lake, file, partner):
            seen = seen or _Collected(block.matrix.shape[1])
            seen.add(file, block)
    if seen is None:
        raise ConfigError(
            "no features are there", f"{counted(number, 'file')} without a row", "look at --partner and the path"
        )
    return seen.stats(number)


def _rows_of(lake: Lake, file: str, partner: int | None) -> Iterator[Block]:
    with lake.open(file) as stream:
        for block in blocks(file, stream, _values_of(lake, file)):
            some = np.ones(len(block.item_id), np.bool_) if partner is None else block.partner_id == partner
            if some.any():
                prints = tuple(text for text, wanted in zip(block.fingerprint, some.tolist(), strict=True) if wanted)
                yield Block(block.partner_id[some], block.item_id[some], prints, block.matrix[some], block.first)


def _values_of(lake: Lake, file: str) -> int:
    """Values of a feature, as the manifest beside a text says; 0 of Parquet, which tells it, and without a manifest."""
    if file.endswith(".parquet"):
        return 0
    folder = file[: file.rfind("/") + 1]
    try:
        return read_body(lake, _OfFeatures, f"{folder}{MANIFEST}").dim
    except NotFound:
        return 0


class _OfFeatures(Body):
    """What the manifests of deliveries and of current tables both say."""

    dim: Dim


class _Collected:
    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._rows = self._finite = self._norm_count = 0
        self._fingerprints: Counter[str] = Counter()
        self._buckets = Buckets()
        self._least = np.full(dim, np.inf)
        self._greatest = np.full(dim, -np.inf)
        self._mean = np.zeros(dim)
        self._squares = np.zeros(dim)
        self._nonzero = np.zeros(dim, np.int64)
        self._norms = _Norms()
        self._items, self._vectors = Repeats(), Repeats()
        self._sample = Sample(dim)

    def add(self, file: str, block: Block) -> None:
        if block.matrix.shape[1] != self._dim:
            what = f"{file} has {block.matrix.shape[1]} values a row, and the files before it have {self._dim}"
            raise FormatError("features of two lengths", what, "two nets: name the files of one of them")
        self._rows += len(block.item_id)
        self._fingerprints.update(block.fingerprint)
        hashes = item_hashes(block.partner_id, block.item_id)
        self._items.add(hashes)
        good = np.isfinite(block.matrix).all(1)
        if good.any():
            matrix = block.matrix[good]
            self._values(matrix)
            self._norms.add(matrix)
            self._vectors.add(vector_hashes(matrix))
            self._sample.add(hashes[good], matrix)

    def _values(self, matrix: Matrix) -> None:
        """Mean and squares by the update of Chan, Golub and LeVeque (1979), which keeps its digits."""
        rows = len(matrix)
        self._buckets.add(matrix)
        np.minimum(self._least, matrix.min(0), out=self._least)
        np.maximum(self._greatest, matrix.max(0), out=self._greatest)
        self._nonzero += np.count_nonzero(matrix, axis=0)
        mean = matrix.mean(0, dtype=np.float64)
        squares = ((matrix - mean) ** 2).sum(0)
        apart = mean - self._mean
        both = self._finite + rows
        self._mean += apart * (rows / both)
        self._squares += squares + apart**2 * (self._finite * rows / both)
        self._finite = both

    def stats(self, files: int) -> Stats:
        return Stats(
            files=files,
            rows=self._rows,
            not_finite=self._rows - self._finite,
            dim=self._dim,
            fingerprints=dict(sorted(self._fingerprints.items())),
            buckets=self._buckets,
            least=self._least,
            greatest=self._greatest,
            mean=self._mean,
            deviation=np.sqrt(self._squares / max(1, self._finite)),
            nonzero=self._nonzero,
            norms=self._norms.norms(),
            equal_items=self._items.repeated(),
            equal_vectors=self._vectors.repeated(),
            sample=self._sample,
        )


class _Norms:
    def __init__(self) -> None:
        self._least, self._greatest, self._sum = np.inf, 0.0, 0.0
        self._count = self._not_one = self._zero = 0
        self._step = 1
        self._kept: list[Values] = []

    def add(self, matrix: Matrix) -> None:
        norms = np.sqrt(np.einsum("nd,nd->n", matrix, matrix, dtype=np.float64))
        self._least, self._greatest = min(self._least, float(norms.min())), max(self._greatest, float(norms.max()))
        self._sum += float(norms.sum())
        self._not_one += int((np.abs(norms - 1) > NORM_TOLERANCE).sum())
        self._zero += int((norms == 0).sum())
        self._kept.append(norms[-self._count % self._step :: self._step])
        self._count += len(norms)
        while sum(map(len, self._kept)) > _KEPT_NORMS:
            self._kept = [np.concatenate(self._kept)[::2]]
            self._step *= 2

    def norms(self) -> Norms:
        if not self._count:
            return Norms(0.0, 0.0, 0.0, 0, 0, np.zeros(0))
        kept = np.concatenate(self._kept)
        mean = self._sum / self._count
        return Norms(self._least, mean, self._greatest, self._not_one, self._zero, kept)
