"""Parquet files of examples: a column `label`, and `indices` and `values`, or `features`.

label: a whole number or a list of them.  indices, values: lists, where an example has the coordinates of its indices.
features: lists of one length, of dense examples.  A row that cannot be used is left out and named; the others count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.amounts import counted
from pipeline.errors import ConfigError, FormatError
from pipeline.training.descent.gathering import At, Gathered, LeftOut
from pipeline.training.descent.libsvm import MOST, SAYS, File, Wrong
from pipeline.training.descent.values import Numbers

LABEL, INDICES, VALUES, FEATURES = "label", "indices", "values", "features"
_ROWS = 4096
_COLUMNS = f"columns are: {LABEL}, and {INDICES} with {VALUES}, or {FEATURES}"


class DenseRows(NamedTuple):
    """rows: (n, dim) float32.  label (int64), label_lengths: as in Gathered."""

    rows: Numbers
    label: Numbers
    label_lengths: Numbers


class Shape(NamedTuple):
    """Of the dense examples of files.  rows: with those that are left out; dim: None where no file has a row."""

    rows: int
    dim: int


def is_dense(path: File) -> bool:
    """Whether a file holds dense examples.  Raises FormatError for a file without the columns."""
    names = set(opened(path).schema_arrow.names)
    if LABEL in names and {INDICES, VALUES} <= names:
        return False
    if {LABEL, FEATURES} <= names:
        return True
    raise FormatError(f"{path} holds no examples", f"it has the columns {', '.join(sorted(names)) or 'none'}", _COLUMNS)


def shape(paths: Sequence[File]) -> Shape:
    """Raises FormatError where no row of the files has a feature."""
    rows = sum(opened(path).metadata.num_rows for path in paths)
    for path in paths:
        for batch in _batches(path, [FEATURES]):
            lengths = pc.list_value_length(batch.column(0)).drop_null()
            if len(lengths) and lengths[0].as_py():
                return Shape(rows, lengths[0].as_py())
    raise FormatError(f"{paths[0]} holds no features", f"{counted(rows, 'row')} without any", "")


def read(path: File, dim: int | None, left_out: LeftOut, group: int | None = None) -> Iterator[Gathered]:
    """Sparse examples.  dim: indices from there on are wrong.  group: of this row group alone, its rows from 1.

    Raises FormatError for columns of other types.
    """
    number = 0
    for batch in _batches(path, [LABEL, INDICES, VALUES], group=group):
        labels, indices, values = (batch.column(name) for name in (LABEL, INDICES, VALUES))
        index, index_lengths = _flat(path, INDICES, indices, pa.int64())
        value, value_lengths = _flat(path, VALUES, values, pa.float64())
        label, label_lengths = _labels(path, labels)
        wrong = np.zeros(len(batch), np.int64)
        _mark(wrong, label_lengths < 0, Wrong.LABEL)
        _mark(wrong, (index_lengths != value_lengths) | (index_lengths < 0), Wrong.PAIR)
        _mark(wrong, index_lengths == 0, Wrong.EMPTY)
        whole, same = np.repeat(np.arange(len(batch)), np.maximum(index_lengths, 0)), index_lengths == value_lengths
        _mark(wrong, _any(whole, (index < 0) | (index > MOST), len(batch)), Wrong.INDEX)
        if dim is not None:
            _mark(wrong, _any(whole, index >= dim, len(batch)), Wrong.BEYOND)
        after = np.zeros(len(index), bool)
        after[1:] = whole[1:] == whole[:-1]
        step = np.zeros(len(index), np.int64)
        step[1:] = np.diff(index)
        _mark(wrong, _any(whole, after & (step == 0), len(batch)), Wrong.REPEATED)
        _mark(wrong, _any(whole, after & (step < 0), len(batch)), Wrong.UNSORTED)
        of_values = np.repeat(np.arange(len(batch)), np.maximum(value_lengths, 0))
        with np.errstate(over="ignore"):
            single = value.astype(np.float32)
        _mark(wrong, _any(of_values, ~np.isfinite(single), len(batch)), Wrong.VALUE)
        _say(path, number, wrong, left_out)
        good = wrong == 0
        assert bool(same[good].all())
        yield Gathered(index[good[whole]].astype(np.uint32), single[good[of_values]], index_lengths[good],
                       label[good[np.repeat(np.arange(len(batch)), np.maximum(label_lengths, 0))]],
                       label_lengths[good])  # fmt: skip
        number += len(batch)


def read_dense(path: File, dim: int, left_out: LeftOut, group: int | None = None) -> Iterator[DenseRows]:
    """Dense examples.  A row of another length than `dim` is left out.  group: as for `read`."""
    number = 0
    for batch in _batches(path, [LABEL, FEATURES], max(1, 4 * 2**20 // (4 * dim)), group):
        value, lengths = _flat(path, FEATURES, batch.column(FEATURES), pa.float32())
        label, label_lengths = _labels(path, batch.column(LABEL))
        wrong = np.zeros(len(batch), np.int64)
        _mark(wrong, label_lengths < 0, Wrong.LABEL)
        if (lengths == dim).all():  # as it is nearly always: no number is looked up by its row
            rows = value.reshape(-1, dim)
        else:
            of = np.repeat(lengths == dim, np.maximum(lengths, 0))
            rows = np.zeros((len(batch), dim), np.float32)
            rows[lengths == dim] = value[of].reshape(-1, dim)
        _mark(wrong, ~np.isfinite(rows).all(1), Wrong.VALUE)
        for row in np.flatnonzero(lengths != dim).tolist():
            has = "no feature" if lengths[row] < 0 else f"a feature of {lengths[row]:,} numbers, not {dim:,}"
            left_out.put(At(str(path), "row", number + row + 1), f"it has {has}")
        _say(path, number, np.where(lengths != dim, 0, wrong), left_out)
        good = (wrong == 0) & (lengths == dim)
        yield DenseRows(rows if good.all() else rows[good],
                        label[good[np.repeat(np.arange(len(batch)), np.maximum(label_lengths, 0))]],
                        label_lengths[good])  # fmt: skip
        number += len(batch)


def opened(path: File) -> pq.ParquetFile:
    """Raises FormatError for what is no Parquet file."""
    try:
        return pq.ParquetFile(path if isinstance(path, Path) else path.open("rb"))
    except (OSError, pa.ArrowException) as error:
        raise FormatError(f"{path} cannot be read", str(error).partition("\n")[0], "") from error


def _batches(path: File, columns: list[str], rows: int = _ROWS, group: int | None = None) -> Iterator[pa.RecordBatch]:
    groups = None if group is None else [group]
    try:
        yield from opened(path).iter_batches(rows, row_groups=groups, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise FormatError(f"{path} cannot be read", str(error).partition("\n")[0], "") from error


def _flat(path: File, name: str, column: pa.Array, kind: pa.DataType) -> tuple[Numbers, Numbers]:
    """(the numbers of all lists, how many each has: -1 for one that is null); a number that is null is NaN or -1."""
    listed = column.type
    if not (pa.types.is_list(listed) or pa.types.is_large_list(listed) or pa.types.is_fixed_size_list(listed)):
        raise FormatError(f"{path} holds no examples", f"the column {name} is {listed}, not lists", _COLUMNS)
    held = listed.value_type
    if not (pa.types.is_integer(held) or pa.types.is_floating(held)):
        raise FormatError(f"{path} holds no examples", f"the column {name} holds {held}, not numbers", _COLUMNS)
    if pa.types.is_integer(kind) and not pa.types.is_integer(held):
        raise FormatError(f"{path} holds no examples", f"the column {name} holds {held}, not whole numbers", _COLUMNS)
    lengths = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = pc.list_flatten(column)
    if pa.types.is_integer(kind):
        fits = flat.cast(kind, safe=False)  # of uint64 what is too large becomes negative
        return fits.fill_null(-1).to_numpy(zero_copy_only=False), lengths
    return flat.cast(kind, safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False), lengths


def _labels(path: File, column: pa.Array) -> tuple[Numbers, Numbers]:
    """(labels of all rows, how many each has: -1 for a row whose label names no class, which has none then)."""
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif pa.types.is_list(kind) and pa.types.is_integer(kind.value_type):
        held = pc.list_flatten(column)
        flat, lengths = _flat(path, LABEL, column, pa.int64())
        of = np.repeat(np.arange(len(column)), np.maximum(lengths, 0))
        bad = held.is_null().to_numpy(zero_copy_only=False) | (np.abs(flat) > MOST)
        bad = _any(of, bad, len(column)) | (lengths < 0)
        return flat[~bad[of]], np.where(bad, -1, lengths)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise FormatError(f"{path} holds no examples", f"the column {LABEL} is {kind}", "number the classes")
    found = column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
    good = (found == np.floor(found)) & (np.abs(found) <= MOST)
    return found[good].astype(np.int64), np.where(good, 1, -1)


def _any(of: Numbers, bad: Numbers, rows: int) -> Numbers:
    found = np.zeros(rows, bool)
    found[of[bad]] = True
    return found


def _mark(wrong: Numbers, bad: Any, what: Wrong) -> None:
    wrong[bad & (wrong == 0)] = what


def _say(path: File, number: int, wrong: Numbers, left_out: LeftOut) -> None:
    for row in np.flatnonzero(wrong).tolist():
        left_out.put(At(str(path), "row", number + row + 1), SAYS[Wrong(int(wrong[row]))])


def checked_rows(name: str, features: Numbers, labels: Numbers, left_out: LeftOut) -> Iterator[DenseRows]:
    """Dense examples of two arrays, in parts.  Raises ConfigError for shapes and types that are no examples."""
    if features.ndim != 2 or features.dtype.kind not in "fiub" or not features.shape[1]:
        raise ConfigError(f"{name} holds no examples", f"features: {features.dtype}, shape {features.shape}",
                          "give a matrix of numbers, an example a row")  # fmt: skip
    if labels.shape != features.shape[:1] or labels.dtype.kind not in "fiub":
        raise ConfigError(f"{name} holds no labels of its {len(features):,} examples",
                          f"labels: {labels.dtype}, shape {labels.shape}", "give one number an example")  # fmt: skip
    step = max(1, 4 * 2**20 // (4 * features.shape[1]))
    for first in range(0, len(features), step):
        with np.errstate(over="ignore"):
            rows = features[first : first + step].astype(np.float32)
        own = labels[first : first + step].astype(np.float64)
        wrong = np.zeros(len(rows), np.int64)
        _mark(wrong, ~((own == np.floor(own)) & (np.abs(own) <= MOST)), Wrong.LABEL)
        _mark(wrong, ~np.isfinite(rows).all(1), Wrong.VALUE)
        for row in np.flatnonzero(wrong).tolist():
            left_out.put(At(name, "row", first + row + 1), SAYS[Wrong(int(wrong[row]))])
        good = wrong == 0
        yield DenseRows(rows[good], own[good].astype(np.int64), np.ones(int(good.sum()), np.int64))
