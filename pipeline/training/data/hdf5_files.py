"""Caffe's HDF5Data layer: datasets of HDF5 files, named as the layer's tops, a row an example."""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import FormatError, SolverError
from pipeline.nets.graph.lowered import Shape
from pipeline.training.data.source import Batch, Labels, Trouble
from pipeline.training.data.transform import Transform
from pipeline.training.draws.draws import Draws
from pipeline.training.draws.shuffling import Shuffler
from pipeline.training.hdf5 import is_hdf5, unreadable
from pipeline.training.packages import demand

_KEPT = 2  # files in memory: the batch may lie across two
_TURNS = 8  # whose order is known: threads ask for batches before and behind one another


@dataclass(frozen=True, slots=True)
class Run:
    """One turn through a file: the numbers of its rows in order (None: as they stand)."""

    file: int
    rows: NDArray[np.int64] | None


class Runs:
    """The turns through the files, one after another: the same list each time it is asked.

    Caffe shuffles the files before each round, the rows of a file as it is loaded, and them once more as a turn ends;
    a lone file stays loaded, so its rows are shuffled from where they are.
    """

    def __init__(self, lengths: list[int], shuffler: Shuffler | None) -> None:
        self._lengths, self._shuffler, self._lock = lengths, shuffler, threading.Lock()
        self._files = list(range(len(lengths)))
        self._at = 0
        if shuffler is not None:
            shuffler.shuffle(self._files)
        self._rows = self._loaded()
        self._first = (self._files[:], self._rows[:], None if shuffler is None else shuffler.copy())
        self._begin()

    def _loaded(self) -> list[int]:
        rows = list(range(self._lengths[self._files[self._at]]))
        if self._shuffler is not None:
            self._shuffler.shuffle(rows)
        return rows

    def _begin(self) -> None:
        files, rows, shuffler = self._first
        self._files, self._rows, self._at = files[:], rows[:], 0
        self._shuffler = None if shuffler is None else shuffler.copy()
        self._start = 0
        self._kept = OrderedDict({0: self._run()})

    def _run(self) -> Run:
        return Run(self._files[self._at], np.array(self._rows, np.int64))

    def find(self, row: int) -> tuple[int, Run]:
        """The turn in which this row (counted from the beginning of the training) lies, and the row it begins with."""
        with self._lock:
            if self._shuffler is None:
                return self._plain(row)
            if row < next(iter(self._kept)):
                self._begin()
            while row >= self._start + len(self._rows):
                self._next()
            start = max(begin for begin in self._kept if begin <= row)
            return start, self._kept[start]

    def _plain(self, row: int) -> tuple[int, Run]:
        ends = list(accumulate(self._lengths))
        turn, within = divmod(row, ends[-1])
        file = bisect.bisect_right(ends, within)
        return turn * ends[-1] + ends[file] - self._lengths[file], Run(file, None)

    def _next(self) -> None:
        assert self._shuffler is not None
        self._start += len(self._rows)
        if len(self._files) > 1:
            self._at += 1
            if self._at == len(self._files):
                self._at = 0
                self._shuffler.shuffle(self._files)
            self._rows = self._loaded()
        self._shuffler.shuffle(self._rows)
        self._kept[self._start] = self._run()
        if len(self._kept) > _TURNS:
            self._kept.popitem(last=False)


class Hdf5Files:
    """A HDF5Data layer as a source: a file is read whole, as Caffe does, and the last two stay in memory."""

    in_order = False
    transform: Transform | None = None

    def __init__(self, spec: caffe_pb2.LayerParameter, train: bool, draws: Draws, folder: Path) -> None:
        given = spec.hdf5_data_param
        where = f"layer '{spec.name}' (HDF5Data)"
        if spec.HasField("transform_param"):
            raise SolverError(f"{where}: HDF5Data transforms nothing", "it has a transform_param", "remove it")
        if given.batch_size < 1:
            raise SolverError(f"{where}: batch_size is {given.batch_size}", "", "give 1 or more")
        self.layer, self._tops, self._size = spec.name, list(spec.top), given.batch_size
        self._h5py = demand("h5py", where)
        self._list = folder / given.source
        self._files = listed(self._list, folder, f"layer '{spec.name}': hdf5_data_param.source")
        shapes = [self._shapes(file) for file in self._files]
        self._check(shapes)
        self._lengths = [one[self._tops[0]][0] for one in shapes]
        self.count = sum(self._lengths)
        self.shapes: dict[str, Shape] = {top: (self._size, *shape[1:]) for top, shape in shapes[0].items()}
        self._runs = Runs(self._lengths, draws.shuffler(spec.name) if given.shuffle else None)
        self._lock = threading.Lock()
        self._loaded: OrderedDict[int, dict[str, NDArray[np.float32]]] = OrderedDict()

    def _opened(self, file: Path) -> Any:
        try:
            return self._h5py.File(file, "r")
        except OSError as error:
            hint = f"{self._list} is to list files of HDF5 that are whole: no folders, no other lists"
            raise FormatError(f"the file {file} cannot be read as HDF5", unreadable(file, error), hint) from error

    def _shapes(self, file: Path) -> dict[str, Shape]:
        """By top.  Raises FormatError for a dataset that is not there, or holds no numbers."""
        found: dict[str, Shape] = {}
        with self._opened(file) as opened:
            for top in self._tops:
                dataset = opened.get(top)
                if not isinstance(dataset, self._h5py.Dataset):
                    has = ", ".join(sorted(opened)) or "nothing"
                    raise FormatError(f"{file} has no dataset '{top}'", f"it holds {has}", "name tops as its datasets")
                if dataset.dtype.kind not in "fiub" or not dataset.shape:
                    says = f"its values are {dataset.dtype} of shape {dataset.shape}"
                    raise FormatError(f"dataset '{top}' of {file} holds no rows of numbers", says, "store float32")
                found[top] = tuple(dataset.shape)
        return found

    def _check(self, shapes: list[dict[str, Shape]]) -> None:
        for file, one in zip(self._files, shapes, strict=True):
            lengths = {top: shape[0] for top, shape in one.items()}
            if len(set(lengths.values())) > 1 or not min(lengths.values()):
                says = ", ".join(f"{top} {length}" for top, length in lengths.items())
                what = "holds no rows" if not max(lengths.values()) else "has datasets of different lengths"
                raise FormatError(f"{file} {what}", f"rows: {says}", "an example is one row of each dataset")
            for top, shape in one.items():
                if shape[1:] != shapes[0][top][1:]:
                    says = f"its rows are {shape[1:]}; those of {self._files[0]} are {shapes[0][top][1:]}"
                    raise FormatError(f"dataset '{top}' of {file} has another shape", says, "make all files alike")

    def batch(self, number: int) -> Batch:
        found = {top: np.empty(shape, np.float32) for top, shape in self.shapes.items()}
        for first, file, rows in self._pieces(number):
            values = self._load(file)
            for top in self._tops:
                found[top][first : first + rows.size] = values[top][rows]
        return found

    def _pieces(self, number: int) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """What a batch consists of: from which of its places on, of which file, which rows."""
        at, end = number * self._size, (number + 1) * self._size
        while at < end:
            start, run = self._runs.find(at)
            stop = min(end, start + self._lengths[run.file])
            rows = np.arange(at - start, stop - start)
            if run.rows is not None:
                rows = run.rows[at - start : stop - start]
            yield at - number * self._size, run.file, rows
            at = stop

    def _load(self, file: int) -> dict[str, NDArray[np.float32]]:
        with self._lock:  # HDF5 reads one thing at a time in any case
            if file not in self._loaded:
                with self._opened(self._files[file]) as opened:
                    self._loaded[file] = {top: self._values(opened[top], file) for top in self._tops}
                if len(self._loaded) > _KEPT:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(file)
            return self._loaded[file]

    def _values(self, dataset: Any, file: int) -> NDArray[np.float32]:
        try:
            return np.asarray(dataset[()]).astype(np.float32, copy=False)
        except OSError as error:
            raise FormatError(
                f"dataset '{dataset.name}' of {self._files[file]} is damaged", str(error), "make the file anew"
            ) from error

    def keys(self, number: int) -> list[str]:
        return [f"{self._files[file]}[{row}]" for _, file, rows in self._pieces(number) for row in rows.tolist()]

    def examine(self, labels: Mapping[str, Labels], examples: range) -> Iterator[Trouble]:
        ends = list(accumulate(self._lengths))
        for at in examples:
            file = bisect.bisect_right(ends, at)
            row = at - ends[file] + self._lengths[file]
            for top, values in self._load(file).items():
                one = values[row]
                key = f"{self._files[file]}[{row}]"
                if not np.isfinite(one).all():
                    yield Trouble(key, f"its '{top}' holds numbers that are NaN or infinite")
                elif top in labels:
                    wrong = [value for value in one.ravel().tolist() if not labels[top].fits(value)]
                    if wrong:
                        classes = labels[top].classes
                        says = f"its label is {wrong[0]:g}; the net has {classes} classes, 0 to {classes - 1}"
                        yield Trouble(key, says)

    def close(self) -> None:
        self._loaded.clear()


def listed(path: Path, folder: Path, field: str) -> list[Path]:
    """The files of a list, relative to the folder.  Raises SolverError, which names the field, for what is no list."""
    hint = "give a text with the path of an HDF5 file a line"
    if path.is_dir():
        raise SolverError(f"{field}: {path} lists no HDF5 file", "it is a folder", hint)
    if is_hdf5(path):
        raise SolverError(f"{field}: {path} lists no HDF5 file", "it is an HDF5 file itself", hint)
    try:
        names = path.read_text(errors="surrogateescape").split()
    except OSError as error:
        raise SolverError(f"{field}: {path} cannot be read", error.strerror or str(error), hint) from error
    if not names or any("\0" in name for name in names):
        says = "its bytes are no text" if names else "it is empty"
        raise SolverError(f"{field}: {path} lists no HDF5 file", says, hint)
    return [folder / name for name in names]
