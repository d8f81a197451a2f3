"""Delivered features as text in the form of libsvm: `item index:value ...` a line, for programs that learn from it.

Indices start at 1 and zeros are left out, so a line does not say how many values a feature has: the folder's manifest
does (`dim`).  Values are the shortest decimals that give the same float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute as pc

from pipeline.codec.shards import Matrix
from pipeline.errors import FormatError


def libsvm_lines(partner_id: int, item_ids: Sequence[int], matrix: Matrix) -> npt.NDArray[np.uint8]:
    """The lines of a matrix (n, dim) as bytes, newlines included.  Raises FormatError for what is not finite."""
    if not np.isfinite(matrix).all():
        raise FormatError("a feature cannot be written", f"partner {partner_id}: it is not finite")
    rows, columns = np.nonzero(matrix)
    ends = np.cumsum(np.bincount(rows, minlength=len(matrix)), dtype=np.int32)
    values = pa.array(matrix[rows, columns]).cast(pa.string())
    pairs = pc.binary_join_element_wise(_indices(matrix.shape[1]).take(pa.array(columns)), values, ":")
    joined = pc.binary_join(pa.ListArray.from_arrays(np.append(np.int32(0), ends), pairs), " ").to_pylist()
    lines = (f"{item} {line}".rstrip() + "\n" for item, line in zip(item_ids, joined, strict=True))
    return np.frombuffer("".join(lines).encode(), np.uint8)


def read_libsvm_lines(lines: Sequence[bytes], dim: int) -> tuple[None, npt.NDArray[np.uint64], Matrix]:
    """Unsigned items and the matrix (n, dim) of lines; they do not say the partner.

    Raises ValueError or OverflowError for lines that are none of ours, and where nobody knows dim.
    """
    if not dim:
        raise ValueError(
            "the number of values in a feature is unknown: zeros are left out, and no _manifest.json "
            "lies beside the file"
        )
    matrix = np.zeros((len(lines), dim), np.float32)
    items = []
    for row, line in enumerate(lines):
        item, _, pairs = line.partition(b" ")
        items.append(int(item))
        numbers = np.array(pairs.replace(b":", b" ").split(), np.float64)
        indices = numbers[0::2].astype(np.int64)
        ascend = np.diff(indices, prepend=0, append=dim + 1) > 0
        if len(numbers) % 2 or (indices != numbers[0::2]).any() or not ascend.all():
            raise ValueError(f"its indices do not ascend within 1 to {dim}")
        matrix[row, indices - 1] = numbers[1::2]
    return None, np.array(items, np.uint64), matrix


@lru_cache(maxsize=4)
def _indices(dim: int) -> pa.Array:
    return pa.array(np.arange(1, dim + 1)).cast(pa.string())
