"""Delivered features as text, in the original's form: `partner item v1 ... vN` a line, gzip without a time or a name.

v = round(1e6 * value), the item as an unsigned decimal. Numbers are looked up, not formatted: each is a cell of
8 bytes in a table, padded with zeros that are squeezed out of whole blocks of lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from pipeline.codec.hashed_file import HashedFile, Written
from pipeline.codec.shards import Matrix
from pipeline.errors import FormatError

MILLION = 10**6
_LEVEL = 1
_GZIP_WINDOW = 31  # 15 bits, with gzip's header; isal leaves time and name out of it
_BLOCK_ROWS = 64  # what is formatted at a time stays within a core's cache
_HEAD_CELLS = 6  # "partner item" takes 19 + 1 + 20 bytes at the most

Cells = npt.NDArray[np.uint64]
Lines = Callable[[int, Sequence[int], Matrix], npt.NDArray[np.uint8]]


class TextWriter:
    """Writes a new file of text features; the bytes depend on how the rows are cut into calls of `write`."""

    def __init__(self, path: Path, lines: Lines | None = None) -> None:
        """lines: those of another form than the original's."""
        self._lines = lines or text_lines
        self._file = HashedFile(path)
        self._gzip = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)
        self._rows = 0

    def write(self, partner_id: int, item_ids: Sequence[int], matrix: Matrix) -> None:
        """Adds a line for each row of the matrix (n, dim).  Raises FormatError for values that are not finite."""
        for at in range(0, len(item_ids), _BLOCK_ROWS):
            rows = slice(at, at + _BLOCK_ROWS)
            self._file.write(self._gzip.compress(self._lines(partner_id, item_ids[rows], matrix[rows])))
        self._rows += len(item_ids)

    def close(self) -> Written:
        self._file.write(self._gzip.flush())
        self._file.close()
        return self._file.written(self._rows)

    def abandon(self) -> None:
        """Closes a file that will not be used."""
        self._file.close()


def text_lines(partner_id: int, item_ids: Sequence[int], matrix: Matrix) -> npt.NDArray[np.uint8]:
    """The lines of a matrix (n, dim) as bytes, newlines included."""
    numbers = np.rint(np.multiply(matrix, MILLION, dtype=np.float64))
    least, greatest = (numbers.min(), numbers.max()) if numbers.size else (0, 0)
    if not np.isfinite(least + greatest):
        raise FormatError("a feature cannot be written", f"partner {partner_id}: it is not finite")
    if least > -MILLION and greatest <= MILLION:
        cells = _with_room(len(item_ids), matrix.shape[1])
        np.take(_table(), numbers.astype(np.int32) + (MILLION - 1), mode="clip", out=cells[:, _HEAD_CELLS:-1])
    elif least > -MILLION * MILLION and greatest < MILLION * MILLION:
        cells = _with_room(len(item_ids), 2 * matrix.shape[1])
        _fill_in_two(numbers.astype(np.int64), cells[:, _HEAD_CELLS:-1])
    else:
        return _slowly(partner_id, item_ids, numbers)
    heads = [f"{partner_id} {item_id}".encode() for item_id in item_ids]
    cells[:, :_HEAD_CELLS] = np.array(heads, f"S{8 * _HEAD_CELLS}").view(np.uint64).reshape(-1, _HEAD_CELLS)
    cells[:, -1] = ord("\n")
    flat = cells.view(np.uint8).reshape(-1)
    return np.compress(flat != 0, flat)  # lets other threads run, which bytes.translate does not


def read_lines(lines: Sequence[bytes], dim: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64], Matrix]:
    """Partners, unsigned items and the matrix (n, values) of lines; dim: values of a feature, 0 if unknown.

    Raises ValueError or OverflowError for lines that are none of ours, or of several lengths.
    """
    cells = [line.split(None, 2) for line in lines]
    if any(len(row) != 3 for row in cells):
        raise ValueError("a line has no numbers")
    width = len(cells[0][2].split())
    vectors = [np.array(row[2].split(), np.float64) for row in cells]
    if any(len(vector) != width for vector in vectors):
        raise ValueError("its lines have several lengths")
    if dim not in (0, width):
        raise ValueError(f"its lines have {width} values, its manifest says {dim}")
    return (
        np.array([int(row[0]) for row in cells], np.int64),
        np.array([int(row[1]) for row in cells], np.uint64),
        (np.stack(vectors) / MILLION).astype(np.float32),
    )


def _with_room(rows: int, cells: int) -> Cells:
    """Cells for lines: a head, the numbers, a newline."""
    return np.empty((rows, _HEAD_CELLS + cells + 1), np.uint64)


def _fill_in_two(numbers: npt.NDArray[np.int64], cells: Cells) -> None:
    """Numbers of up to 12 digits, each in two cells: what stands before the last six digits, and these."""
    small = (numbers > -MILLION) & (numbers <= MILLION)
    size = np.abs(numbers)
    before = np.where(small, numbers, np.sign(numbers) * (size // MILLION))
    cells[:, 0::2] = _table().take(before + (MILLION - 1))
    cells[:, 1::2] = np.where(small, 0, _six_digits().take(size % MILLION))


def _slowly(partner_id: int, item_ids: Sequence[int], numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Numbers of any size, one by one."""
    lines = (
        f"{partner_id} {item_id} {' '.join(map(str, map(int, row)))}\n"
        for item_id, row in zip(item_ids, numbers.tolist(), strict=True)
    )
    return np.frombuffer("".join(lines).encode(), np.uint8)


@cache
def _table() -> Cells:
    """A blank and the number, for each from -999,999 to 1,000,000; zero bytes stand for leading zeros and no sign."""
    positive = _digits().reshape(-1, 8)
    positive[:, 0] = ord(" ")
    for place in range(5):
        positive[: 10 ** (5 - place), place + 2] = 0
    negative = positive[:0:-1].copy()
    negative[:, 1] = ord("-")
    million = np.frombuffer(b" 1000000", np.uint8).reshape(1, 8)
    return np.concatenate([negative, positive, million]).view(np.uint64).reshape(-1)


@cache
def _six_digits() -> Cells:
    """The numbers below a million, leading zeros included."""
    return _digits().reshape(-1, 8).view(np.uint64).reshape(-1)


def _digits() -> npt.NDArray[np.uint8]:
    """Cells of the numbers below a million, by their six digits: two zero bytes, then those digits."""
    digits = np.zeros((*[10] * 6, 8), np.uint8)
    for place in range(6):
        shape = [1] * 6
        shape[place] = 10
        digits[..., place + 2] = np.arange(ord("0"), ord("9") + 1).reshape(shape)
    return digits
