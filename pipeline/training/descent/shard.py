"""A shard of the data as files in a folder: read from its pieces once, mapped into memory by whoever works on it."""

from __future__ import annotations

import json
import mmap
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import ConfigError
from pipeline.training.descent.dense_file import DenseFile
from pipeline.training.descent.examples import Dense, Labels, Sparse
from pipeline.training.descent.gathering import Gathering, as_they_stand
from pipeline.training.descent.pieces import Lines, Plan, dense_rows, gathered
from pipeline.training.descent.tables import Shape
from pipeline.training.descent.values import Numbers, Rows

_ABOUT, _MATRIX = "shard.json", "matrix"


@dataclass(frozen=True)
class Place:
    """folder: of this process's host, for shards.  plan: of all shards."""

    folder: Path
    plan: Plan

    @contextmanager
    def opened(self, shard: int, heard: list[Lines] | None = None) -> Iterator[Sparse | Dense]:
        """The examples of a shard, their labels by the numbers that stand in the data; they are used within.

        heard: gets what is odd, and the shard is read anew.  Raises ConfigError where it holds no example.
        """
        own = self.folder / f"{shard:05d}"
        if not (own / _ABOUT).exists() or heard is not None:
            self._read(own, shard, [] if heard is None else heard)
        about = json.loads((own / _ABOUT).read_text())
        arrays = [_mapped(own / str(number), count, kind) for number, (count, kind) in enumerate(about["arrays"])]
        if "longest" in about:
            yield Sparse(Rows(*arrays), Labels((), True), about["dim"], about["longest"])
            return
        with (own / _MATRIX).open("rb") as file:
            yield Dense(file.fileno(), arrays[0], arrays[1], Labels((), True), about["dim"], about["count"])

    def _read(self, own: Path, shard: int, heard: list[Lines]) -> None:
        """Fills the folder of a shard, beside others that do the same: it appears whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{own.name}-", dir=self.folder))
        try:
            about = (self._dense if self.plan.dense else self._sparse)(made, shard, heard)
            (made / _ABOUT).write_text(json.dumps(about))
            try:
                made.rename(own)
            except OSError:
                if not (own / _ABOUT).exists():  # else another task has read it meanwhile, and has the same
                    raise
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _seed(self, shard: int) -> int:
        return (self.plan.seed << 20) + shard + 1

    def _sparse(self, made: Path, shard: int, heard: list[Lines]) -> dict[str, object]:
        name = f"shard {shard} of {len(self.plan.shards)}"
        with Gathering(name, self._seed(shard)) as gathering:
            for piece in self.plan.shards[shard]:
                gathering.extend(gathered(self.plan, piece, heard))
            if not gathering.rows:
                raise _nothing(name)
            kept = _Kept(made)
            found = gathering.finish(kept, self.plan.dim, as_they_stand)
        return {"arrays": kept.arrays, "dim": found.dim, "longest": found.longest}

    def _dense(self, made: Path, shard: int, heard: list[Lines]) -> dict[str, object]:
        name = f"shard {shard} of {len(self.plan.shards)}"
        assert self.plan.dim is not None
        shape = Shape(self.plan.rows[shard], self.plan.dim)
        with DenseFile(made, shape, self._seed(shard), _MATRIX) as file:
            for piece in self.plan.shards[shard]:
                file.extend(dense_rows(self.plan, piece, heard))
            if not file.rows:
                raise _nothing(name)
            kept = _Kept(made)
            found = file.examples(kept, name, naming=as_they_stand)
        return {"arrays": kept.arrays, "dim": found.dim, "count": found.count}


def _nothing(name: str) -> ConfigError:
    return ConfigError(f"{name} holds no example that counts", "there are few examples, or few of them count",
                       "give fewer --shards; docs/linear.md says what DATA may be")  # fmt: skip


class _Kept:
    """Memory whose arrays are files of a folder, by their numbers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.arrays: list[tuple[int, str]] = []

    def __enter__(self) -> _Kept:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def empty(self, count: int, kind: str) -> Numbers:
        """Zeros."""
        path = self._folder / str(len(self.arrays))
        self.arrays.append((count, kind))
        with path.open("xb") as file:
            file.truncate(max(1, count * np.dtype(kind).itemsize))
        return _mapped(path, count, kind)


def _mapped(path: Path, count: int, kind: str) -> Numbers:
    with path.open("r+b") as file:
        found: Numbers = np.frombuffer(mmap.mmap(file.fileno(), 0), kind, count)
    return found
