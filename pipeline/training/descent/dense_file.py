"""Dense examples in a file without a name, in random order: what a training reads again on every pass.

Memory holds a block of them and their labels, not the matrix.  Each row goes to a random place as it comes; the places
of rows that were left out are filled from the end.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.amounts import size
from pipeline.errors import ConfigError
from pipeline.training.descent.examples import Dense
from pipeline.training.descent.gathering import Naming, classes_of
from pipeline.training.descent.memory import Memory
from pipeline.training.descent.tables import DenseRows, Shape
from pipeline.training.descent.values import Numbers


class DenseFile:
    """A context; its examples are used within it."""

    def __init__(self, scratch: Path, shape: Shape, seed: int, name: str = "") -> None:
        """shape: at most so many rows will come.  name: of the file; it lasts.  Raises ConfigError where no file can be
        made."""
        try:
            self._file: IO[bytes] = (
                (scratch / name).open("x+b", buffering=0) if name
                else tempfile.TemporaryFile(dir=scratch, buffering=0)  # noqa: SIM115  # __exit__ closes it
            )  # fmt: skip
        except OSError as error:
            raise ConfigError(
                f"no file can be made in {scratch}", error.strerror or str(error), "name another folder: --scratch"
            ) from error
        self._scratch, self._shape = scratch, shape
        self._place = np.random.default_rng([seed, 0]).permutation(shape.rows)
        self._labels: list[tuple[Numbers, Numbers]] = []
        self.rows = 0

    def __enter__(self) -> DenseFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def extend(self, more: Iterable[DenseRows]) -> None:
        """Raises ConfigError where they do not fit on the disk."""
        for rows, label, lengths in more:
            for row in np.ascontiguousarray(rows, np.float32):
                self._write(row, int(self._place[self.rows]))
                self.rows += 1
            self._labels.append((label.copy(), lengths.copy()))

    def examples(self, memory: Memory, name: str, known: int = 0, naming: Naming | None = None) -> Dense:
        """All of them, one at least.  known: how many classes there are, 0: those that stand there.  naming: of
        classes; default: `classes_of`.

        Raises ConfigError where there is none, or one class only.
        """
        naming = naming or partial(classes_of, name=name, known=known)
        label, lengths = (np.concatenate([one[kind] for one in self._labels]) for kind in (0, 1))
        labels, numbers, lengths = naming(label, lengths)
        place = self._closed()
        own = np.zeros(self.rows, np.int64)
        own[place] = lengths
        start = memory.empty(self.rows + 1, "i8")
        start[0] = 0
        np.cumsum(own, out=start[1:])
        found = memory.empty(int(start[-1]), "i4")
        first = np.concatenate([[0], np.cumsum(lengths)])[:-1]
        at = np.repeat(start[:-1][place] - first, lengths) + np.arange(len(numbers))
        found[at] = numbers
        return Dense(self._file.fileno(), start, found, labels, self._shape.dim, self.rows)

    def _closed(self) -> Numbers:
        """Where each row is, once the places of those that never came are filled from the end."""
        place = self._place[: self.rows].copy()
        late = np.flatnonzero(place >= self.rows)
        holes = np.setdiff1d(np.arange(self.rows), place, assume_unique=True)
        buffer = bytearray(4 * self._shape.dim)
        for row, hole in zip(late.tolist(), holes.tolist(), strict=True):
            os.preadv(self._file.fileno(), [buffer], int(place[row]) * len(buffer))
            self._write(np.frombuffer(buffer, np.float32), hole)
            place[row] = hole
        return place

    def _write(self, row: Numbers, place: int) -> None:
        left, at = row.data.cast("B"), place * 4 * self._shape.dim
        try:
            while left:
                done = os.pwrite(self._file.fileno(), left, at)
                left, at = left[done:], at + done
        except OSError as error:
            whole = 4 * self._shape.dim * self._shape.rows
            raise ConfigError(
                f"the examples do not fit on the disk of {self._scratch}",
                f"{error.strerror or error}; they take {size(whole)}",
                "name another folder by --scratch",
            ) from error
