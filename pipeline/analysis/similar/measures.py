"""Distances between a vector and the rows of a matrix, summed in float64."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pipeline.codec.shards import Matrix

Metric = Literal["l1", "l2", "cosine"]
METRICS: tuple[Metric, ...] = get_args(Metric)


def distances(metric: Metric, query: npt.NDArray[np.float32], matrix: Matrix) -> npt.NDArray[np.float64]:
    """query (dim,), matrix (rows, dim) -> (rows,): 0 for equal ones.

    cosine: 1 - cosine of the angle; 1 where one of the two is all zeros.  A row that is not finite is infinitely far.
    """
    rows = matrix.astype(np.float64)
    if metric == "cosine":
        lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows)) * np.linalg.norm(query.astype(np.float64))
        with np.errstate(invalid="ignore"):
            found = 1 - (rows @ query.astype(np.float64)) / np.where(lengths > 0, lengths, 1)
        found = np.where(np.abs(found) < 1e-12, 0.0, found)
    else:
        rows -= query
        found = np.abs(rows).sum(1) if metric == "l1" else np.sqrt(np.einsum("nd,nd->n", rows, rows))
    return np.where(np.isnan(found), np.inf, found)
