"""What DATA is, and its examples: files of libsvm's form, Parquet, NumPy's files, a dataset of delivered features."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from pipeline.amounts import counted
from pipeline.errors import ConfigError, FormatError
from pipeline.training.dataset.manifest import MANIFEST, Manifest
from pipeline.training.descent import libsvm, tables
from pipeline.training.descent.dense_file import DenseFile
from pipeline.training.descent.examples import Dense, Examples, Labels
from pipeline.training.descent.gathering import Gathered, Gathering, LeftOut, Naming
from pipeline.training.descent.memory import Memory
from pipeline.training.descent.tables import DenseRows, Shape
from pipeline.training.descent.values import Numbers
from pipeline.training.linear import reading
from pipeline.training.linear.head import TRAIN

_PARQUET, _NPY, _ZIP = b"PAR1", b"\x93NUMPY", b"PK\x03\x04"
Part = TypeVar("Part", Gathered, DenseRows)
FEATURES, LABELS = ("features", "X", "x"), ("labels", "label", "y")
"""Names of the arrays of a .npz, the first that is there."""


@dataclass(frozen=True)
class Source:
    """path: a file, a folder of files or a dataset.  labels: a .npy of the labels of a .npy.  dim: coordinates of
    sparse examples, None: as the largest index says.  scratch: where dense examples lie while it trains.  told: hears
    of each part that was read how many examples it has."""

    path: Path
    scratch: Path
    labels: Path | None = None
    dim: int | None = None
    seed: int = 0
    told: Callable[[int], None] = lambda _: None


@dataclass(frozen=True)
class Known:
    """What is known of data, wherever its examples are.  count: examples.  dim: coordinates.  left_out: what does not
    count.  manifest: of a dataset of delivered features, else None."""

    count: int
    dim: int
    labels: Labels
    dense: bool
    left_out: LeftOut
    manifest: Manifest | None = None


@dataclass(frozen=True)
class Data:
    """manifest: of a dataset of delivered features, else None.  left_out: what of the data does not count."""

    examples: Examples
    left_out: LeftOut
    manifest: Manifest | None = None

    @property
    def known(self) -> Known:
        own = self.examples
        return Known(own.count, own.dim, own.labels, isinstance(own, Dense), self.left_out, self.manifest)


@dataclass(frozen=True)
class _About:
    """classes: how many there are by the manifest; 0: as the labels say."""

    left_out: LeftOut
    naming: Naming | None = None
    manifest: Manifest | None = None
    classes: int = 0


@contextmanager
def opened(source: Source, memory: Memory, naming: Naming | None = None) -> Iterator[Data]:
    """The examples.  naming: of classes; default: `classes_of`.  Raises ConfigError and FormatError for what holds
    none."""
    left_out = LeftOut()
    if (source.path / MANIFEST).is_file():
        yield from _dataset(source, memory, left_out)
        return
    paths = files_of(source.path)
    kinds = {_kind(path) for path in paths}
    if len(kinds) > 1:
        raise ConfigError(f"{source.path} holds files of several kinds", ", ".join(sorted(kinds)), "give one kind")
    kind = kinds.pop()
    if source.labels is not None and kind != "npy":
        raise ConfigError(f"--labels is of a .npy, and {source.path} has labels itself", "", "leave it out")
    if kind in ("npy", "npz"):
        features, labels = _arrays(source, paths, kind)
        rows = tables.checked_rows(str(source.path), features, labels, left_out)
        shape = Shape(*features.shape) if features.ndim == 2 else Shape(0, 0)
        yield from _dense(source, memory, shape, rows, _About(left_out, naming))
    elif kind == "parquet" and tables.is_dense(paths[0]):
        shape = tables.shape(paths)
        rows = (one for path in paths for one in tables.read_dense(path, shape.dim, left_out))
        yield from _dense(source, memory, shape, rows, _About(left_out, naming))
    else:
        read = tables.read if kind == "parquet" else libsvm.read
        with Gathering(str(source.path), source.seed) as gathering:
            for path in paths:
                gathering.extend(_told(read(path, source.dim, left_out), source))
            with left_out.told():
                if not gathering.rows:
                    raise _nothing(source)
                examples = gathering.finish(memory, source.dim, naming)
        yield Data(examples, left_out)


def _dense(source: Source, memory: Memory, shape: Shape, rows: Iterator[DenseRows], about: _About) -> Iterator[Data]:
    refuse_dim(source.path, source.dim)
    with DenseFile(source.scratch, shape, source.seed) as file:
        file.extend(_told(rows, source))
        with about.left_out.told():
            if not file.rows:
                raise _nothing(source)
            examples = file.examples(memory, str(source.path), about.classes, about.naming)
        yield Data(examples, about.left_out, about.manifest)


def _told(parts: Iterator[Part], source: Source) -> Iterator[Part]:
    for one in parts:
        yield one
        source.told(len(one.label_lengths))


def refuse_dim(data: Path | str, dim: int | None) -> None:
    """Raises ConfigError for a dimension that is given of dense examples."""
    if dim is not None:
        raise ConfigError(f"--dim is of sparse examples, and those of {data} are dense", "", "leave it out")


def _nothing(source: Source) -> ConfigError:
    return ConfigError(f"{source.path} holds no example that counts", "", "docs/linear.md says what DATA may be")


def _dataset(source: Source, memory: Memory, left_out: LeftOut) -> Iterator[Data]:
    manifest = reading.of_features(source.path)
    side = TRAIN if TRAIN in manifest.sides else None
    if manifest.sides and side is None:
        raise ConfigError(f"the dataset {source.path} has no side '{TRAIN}'",
                          f"its sides are: {', '.join(manifest.sides)}", "make it with --split")  # fmt: skip
    classes, _ = reading.classes_of(manifest, source.path, side)
    count = manifest.sides[side].examples if side else manifest.examples
    rows = (
        DenseRows(one.rows, one.labels.astype(np.int64), np.ones(len(one.labels), np.int64))
        for one in reading.rows(source.path, side, manifest.dim, classes)
    )
    shape = Shape(count, manifest.dim)
    yield from _dense(source, memory, shape, rows, _About(left_out, None, manifest, classes))


def files_of(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith((".", "_")))
        if not found:
            raise ConfigError(f"{path} holds no file", "", "give a file, a folder of files or a dataset")
        return found
    if not path.exists():
        raise ConfigError(f"{path} is not there", "", "give a file, a folder of files or a dataset")
    return [path]


def _kind(path: Path) -> str:
    try:
        with path.open("rb") as file:
            begin = file.read(6)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", error.strerror or str(error), "") from error
    if begin.startswith(_PARQUET):
        return "parquet"
    if begin.startswith(_NPY):
        return "npy"
    return "npz" if begin.startswith(_ZIP) else "text"


def _arrays(source: Source, paths: list[Path], kind: str) -> tuple[Numbers, Numbers]:
    """Features and labels.  A .npy is mapped, so a damaged header asks for no memory; so is a .npz's size compared."""
    if len(paths) > 1:
        raise ConfigError(f"{source.path} holds {counted(len(paths), 'file')} of NumPy", "", "give one of them")
    try:
        if kind == "npy":
            if source.labels is None:
                raise ConfigError(f"{paths[0]} holds no labels", "", "give them: --labels FILE.npy")
            return (np.load(paths[0], mmap_mode="r", allow_pickle=False),
                    np.load(source.labels, mmap_mode="r", allow_pickle=False))  # fmt: skip
        with zipfile.ZipFile(paths[0]) as packed:
            names = {name.removesuffix(".npy"): name for name in packed.namelist()}
            return _array(packed, names, FEATURES, paths[0]), _array(packed, names, LABELS, paths[0])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(f"{source.path} cannot be read", str(error), "") from error


def _array(packed: zipfile.ZipFile, names: dict[str, str], wanted: tuple[str, ...], path: Path) -> Numbers:
    name = next((names[one] for one in wanted if one in names), None)
    if name is None:
        raise ConfigError(f"{path} has no array '{wanted[0]}'", f"it has: {', '.join(names) or 'none'}",
                          f"name it {' or '.join(wanted)}")  # fmt: skip
    with packed.open(name) as file:
        major, _ = np.lib.format.read_magic(file)
        head = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        size, _, kind = head(file)
        says = int(np.prod(size, dtype=np.float64)) * kind.itemsize
        if kind.hasobject or says > packed.getinfo(name).file_size:
            raise FormatError(f"{path} cannot be read", f"{name} says {kind} of shape {size}, and holds less", "")
    with packed.open(name) as file:
        found: Numbers = np.lib.format.read_array(file, allow_pickle=False)
    return found
