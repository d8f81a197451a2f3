"""A matrix of features with its labels, of any length: a file without a name, read in chunks into one buffer.

A training reads all rows once for every step.  Parquet is decoded once; from then on a pass costs what copying from the
system's cache costs, or from the disk where the matrix is larger than memory.  The file has no name, so nothing is left
of it however the process ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.amounts import size
from pipeline.errors import ConfigError

Rows = NDArray[np.float32]
Labels = NDArray[np.int32]

CHUNK_BYTES = 4 * 2**20
"""Of the matrix in memory at once."""


class Chunk(NamedTuple):
    """rows: (n, dim) float32, valid until the next chunk is read.  labels: (n,) int32."""

    rows: Rows
    labels: Labels


@dataclass(frozen=True)
class Standard:
    """What is subtracted from each number of a feature, and what it is divided by then.  (dim,) float64."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]


class Table:
    """Rows behind each other in a file of `folder`; a context.  Raises ConfigError where the disk is full."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.dim = dim
        self._folder = folder
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # __exit__ closes it
        except OSError as error:
            raise ConfigError(
                f"no file can be made in {folder}", error.strerror or str(error), "name another folder: --scratch"
            ) from error
        self._labels: list[Labels] = []
        self._rows = 0

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._rows

    @property
    def labels(self) -> Labels:
        """(n,) int32, 4 bytes an example."""
        if len(self._labels) != 1:
            self._labels = [np.concatenate([np.empty(0, np.int32), *self._labels])]
        return self._labels[0]

    def extend(self, chunks: Iterable[Chunk]) -> None:
        """Takes up rows.  Raises ConfigError where they do not fit on the disk."""
        for rows, labels in chunks:
            self._write(self._rows, rows)
            self._labels.append(labels.copy())
            self._rows += len(rows)

    def chunks(self, most: int | None = None) -> Iterator[Chunk]:
        """All rows, or the first `most`, in order, in one buffer that each chunk fills anew."""
        count = self._rows if most is None else min(most, self._rows)
        step = max(1, CHUNK_BYTES // (4 * self.dim))
        buffer = np.empty((min(step, count), self.dim), np.float32)
        labels = self.labels
        for first in range(0, count, step):
            rows = buffer[: min(step, count - first)]
            self._fill(rows, first)
            yield Chunk(rows, labels[first : first + len(rows)])

    def standardise(self, by: Standard) -> None:
        """Each row becomes (row - mean) / scale, rounded to float32."""
        first = 0
        for rows, _ in self.chunks():
            self._write(first, ((rows - by.mean) / by.scale).astype(np.float32))
            first += len(rows)

    def spread(self) -> Standard:
        """Mean and standard deviation of each number; a number that never changes has the scale 1."""
        count, mean, squares = 0, np.zeros(self.dim), np.zeros(self.dim)
        for rows, _ in self.chunks():
            own = rows.mean(0, dtype=np.float64)
            apart = own - mean
            total = count + len(rows)
            squares += np.square(rows - own).sum(0) + np.square(apart) * (count * len(rows) / total)
            mean += apart * (len(rows) / total)
            count = total
        deviation = np.sqrt(squares / max(1, count))
        still = deviation <= 1e-6 * np.abs(mean) + 1e-30
        return Standard(mean, np.where(still, 1.0, deviation))

    def _write(self, first: int, rows: Rows) -> None:
        left = np.ascontiguousarray(rows).data.cast("B")
        at = first * 4 * self.dim
        try:
            while left:
                done = os.pwrite(self._file.fileno(), left, at)
                left, at = left[done:], at + done
        except OSError as error:
            raise ConfigError(
                f"the features do not fit on the disk of {self._folder}",
                f"{error.strerror or error}, after {size(at)}",
                f"a training needs 4 bytes a number there, {size(4 * self.dim)} an example: name another folder by "
                "--scratch",
            ) from error

    def _fill(self, rows: Rows, first: int) -> None:
        into = rows.data.cast("B")
        at = first * 4 * self.dim
        while into:
            got = os.preadv(self._file.fileno(), [into], at)
            if not got:
                raise ConfigError(f"the features in {self._folder} ended early", "", "type the same command again")
            into, at = into[got:], at + got
