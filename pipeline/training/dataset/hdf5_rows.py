"""Rows of HDF5 files as examples: what an HDF5Data layer with the tops `data` and `label` reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import FormatError
from pipeline.training.data.hdf5_files import listed
from pipeline.training.dataset.examples import Example
from pipeline.training.hdf5 import is_hdf5, unreadable
from pipeline.training.packages import demand

DATA, LABEL = "data", "label"
_ROWS = 256
"""Rows that are read at a time."""
_INT32 = 2**31


def is_source(path: Path) -> bool:
    """Whether the path is an HDF5 file, or a list whose first line is the path of one."""
    if is_hdf5(path):
        return True
    try:
        with path.open("rb") as file:
            first = file.readline(4096).strip()
    except OSError:
        return False
    return bool(first) and b"\0" not in first and is_hdf5(Path(first.decode(errors="surrogateescape")))


def examples(path: Path) -> Iterator[Example]:
    """The rows of a file, or of the files of a list one after another, keyed by their number.

    uint8 stays; other numbers become float32, as HDF5Data reads them.  A row of one axis is (values, 1, 1), one of two
    axes (1, height, width).  Raises FormatError for datasets that are no examples, and labels that are not whole.
    """
    h5py = demand("h5py", "HDF5 files")
    number = 0
    for file in [path] if is_hdf5(path) else listed(path, Path(), "the list"):
        try:
            with h5py.File(file, "r") as opened:
                for example in _rows(file, _dataset(opened, file, DATA, h5py), _dataset(opened, file, LABEL, h5py)):
                    yield Example(b"%08d" % number, example)
                    number += 1
        except OSError as error:
            says = unreadable(file, error)
            raise FormatError(f"the file {file} cannot be read as HDF5", says, "make the file anew") from error


def _dataset(opened: Any, file: Path, name: str, h5py: Any) -> Any:
    found = opened.get(name)
    if not isinstance(found, h5py.Dataset):
        has = ", ".join(sorted(opened)) or "nothing"
        hint = f"examples are the rows of two datasets, {DATA} and {LABEL}: rename yours, e.g. with h5py's move"
        raise FormatError(f"{file} has no dataset '{name}'", f"it holds {has}", hint)
    if found.dtype.kind not in "fiub" or not found.shape:
        says = f"its values are {found.dtype} of shape {found.shape}"
        raise FormatError(f"dataset '{name}' of {file} holds no rows of numbers", says, "store float32 or uint8")
    return found


def _rows(file: Path, data: Any, label: Any) -> Iterator[caffe_pb2.Datum]:
    rows, axes = data.shape[0], data.shape[1:]
    if not 1 <= len(axes) <= 3 or not all(axes):
        says = f"its shape is {data.shape}"
        raise FormatError(f"dataset '{DATA}' of {file} holds no images", says, "store (rows, channels, height, width)")
    if label.shape[0] != rows or label.size != rows:
        says = f"{DATA} is {data.shape}, {LABEL} {label.shape}"
        hint = f"a dataset here has one label an example; HDF5Data itself trains with any {LABEL}"
        raise FormatError(f"{file} has not one label for each row", says, hint)
    shape = {1: (*axes, 1, 1), 2: (1, *axes), 3: axes}[len(axes)]
    for first in range(0, rows, _ROWS):
        labels = np.asarray(label[first : first + _ROWS]).reshape(-1).astype(np.float64)
        for at, image in enumerate(np.asarray(data[first : first + _ROWS])):
            yield _datum(image.reshape(shape), float(labels[at]), f"{file}[{first + at}]")


def _datum(image: NDArray[Any], label: float, key: str) -> caffe_pb2.Datum:
    if label != round(label) or not -_INT32 <= label < _INT32:
        hint = "a dataset here has classes; HDF5Data itself trains with any label"
        raise FormatError(f"example '{key}' cannot be used", f"its label is {label:g}, and no whole number", hint)
    channels, height, width = image.shape
    found = caffe_pb2.Datum(channels=channels, height=height, width=width, label=int(label))
    if image.dtype == np.uint8:
        found.data, found.encoded = image.tobytes(), False
    else:
        found.float_data.extend(image.astype(np.float32).ravel().tolist())
    return found
