"""Tables of labels -> who has which: read by the readers of refs, so that items are named as they are there."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.refs.columns import place_of
from pipeline.codec.refs.rows import Rejected, sample_of, sampled
from pipeline.codec.refs.rules import null_forms
from pipeline.codec.refs.tables import Cursor, How, Taken, column_names, detect, open_refs
from pipeline.errors import ConfigError, FormatError
from pipeline.settings import NULL_WORDS, ItemColumns
from pipeline.stores.store import Lake
from pipeline.training.dataset.manifest import LabelFile

LABELS = ("label", "class")
"""Names of the column, where nobody says another."""
NONE = -1
_ROWS, _BYTES = 8192, 64 * 2**20
_NULLS = null_forms(NULL_WORDS)
_PIECE = 2**20


@dataclass(frozen=True)
class Asked:
    """How tables of labels are read.

    label: the column; "" for the first of LABELS that is there.  side: the column of sides; "" for none.
    partner_id: of rows that name none.  as_written: external ids are hashed byte by byte.
    """

    label: str = ""
    side: str = ""
    columns: ItemColumns = field(default_factory=ItemColumns)
    partner_id: int | None = None
    as_written: bool = False


@dataclass(frozen=True)
class Labels:
    """Rows of tables, in their order.

    partners int64, items uint64, labels and sides int32: places in `names` and `side_names`, NONE for an empty cell.
    rejected: rows that name no item; samples: the first of them, each with its file.
    """

    partners: NDArray[np.int64]
    items: NDArray[np.uint64]
    labels: NDArray[np.int32]
    sides: NDArray[np.int32]
    names: tuple[str, ...]
    side_names: tuple[str, ...]
    rejected: int
    samples: tuple[tuple[str, Rejected], ...]
    files: tuple[LabelFile, ...]

    @property
    def rows(self) -> int:
        """All rows, those that are rejected too."""
        return len(self.items) + self.rejected


def read_labels(tables: Iterable[tuple[Lake, str]], asked: Asked) -> Labels:
    """Reads tables one after the other.  tables: each with the lake that it lies on.

    Raises ConfigError for a name that tells no format, FormatError for a file that is no table of labels.
    """
    read = _Read()
    for lake, path in tables:
        read.table(lake, path, asked)
    return read.made()


class _Read:
    def __init__(self) -> None:
        self._partners, self._items = array("q"), array("Q")
        self._labels, self._sides = array("i"), array("i")
        self._names: dict[str, int] = {}
        self._side_names: dict[str, int] = {}
        self._rejected = 0
        self._samples: list[tuple[str, Rejected]] = []
        self._files: list[LabelFile] = []

    def table(self, lake: Lake, path: str, asked: Asked) -> None:
        name = PurePosixPath(path).name
        form = detect(name)
        has = column_names(lake.open(path), path, form, asked.columns, How())
        label = _column(path, has, asked.label or None)
        keep = [label, *([_column(path, has, asked.side)] if asked.side else [])]
        how = How(as_written=asked.as_written, keep=tuple(keep))
        reader = open_refs(lake.open(path), path, form, asked.columns, asked.partner_id, Cursor(0, 0), how)
        rows = 0
        try:
            for taken in _takes(reader):
                rows += taken.rows
                self._take(path, taken, bool(asked.side))
        finally:
            reader.close()
        self._files.append(LabelFile(name=name, rows=rows, sha256=_digest(lake, path)))

    def _take(self, path: str, taken: Taken, sides: bool) -> None:
        self._rejected += taken.rejected
        if len(self._samples) < 10:
            self._samples += [(path, one) for one in sampled(taken.samples)]
        self._partners.extend(ref.partner_id for ref in taken.refs)
        self._items.extend(ref.item_id for ref in taken.refs)
        for piece in taken.kept:
            labels = list(_texts(path, piece[0]))
            self._labels.extend(_codes(labels, self._names))
            self._sides.extend(_codes(_texts(path, piece[1]), self._side_names) if sides else [NONE] * len(labels))

    def made(self) -> Labels:
        return Labels(
            np.array(self._partners, np.int64),
            np.array(self._items, np.uint64),
            np.array(self._labels, np.int32),
            np.array(self._sides, np.int32),
            tuple(self._names),
            tuple(self._side_names),
            self._rejected,
            tuple(self._samples[:10]),
            tuple(self._files),
        )


def _takes(reader: Any) -> Iterator[Taken]:
    while True:
        taken: Taken = reader.take(_ROWS, _BYTES)
        yield taken
        if taken.ended:
            return


def _column(path: str, has: Sequence[str], wanted: str | None) -> str:
    """The name of a column as the file spells it."""
    for name in LABELS if wanted is None else (wanted,):
        if (place := place_of(list(has), name)) is not None:
            return has[place]
    what = f"no column {wanted}" if wanted else f"no column named {', '.join(LABELS)}"
    columns = f"its columns are: {', '.join(map(sample_of, has[:50]))}" if has else "its format has no columns"
    raise ConfigError(f"{path} has {what}", columns, "say which holds the labels: --label NAME")


def _texts(path: str, cells: Any) -> Iterator[str | None]:
    """Cells as text; None for one that holds nothing."""
    for cell in cells if isinstance(cells, list) else cells.to_pylist():
        if isinstance(cell, float) and cell == cell:
            if not cell.is_integer():
                raise FormatError(
                    f"{path} has a label that is no class", f"{cell}", "labels are names or whole numbers"
                )
            cell = int(cell)
        if isinstance(cell, list | dict):
            raise FormatError(f"{path} has a label that is no class", sample_of(str(cell)), "one label a row")
        text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else "" if cell is None else str(cell)
        text = text.strip()
        yield None if not text or text in _NULLS or cell != cell else text


def _codes(texts: Iterable[str | None], known: dict[str, int]) -> Iterator[int]:
    for text in texts:
        yield NONE if text is None else known.setdefault(text, len(known))


def _digest(lake: Lake, path: str) -> str:
    found = hashlib.sha256()
    with lake.open(path) as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()


def demand_tables(tables: Sequence[object]) -> None:
    """Raises ConfigError where there is none."""
    if not tables:
        raise ConfigError("no table of labels is there", "", "name a file, or a folder with files")
