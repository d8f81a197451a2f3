"""Sparse examples that tests and benchmarks make: of RCV1's shape at any size, and files of libsvm's form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="LEFT OUT: linear models: scripts/linear.sh installs numba")

from pipeline.training.descent.examples import Labels, Sparse
from pipeline.training.descent.values import Rows


def like_rcv1(count: int, dim: int, filled: int, seed: int = 7) -> Sparse:
    """Unit rows of about `filled` coordinates by Zipf's law; two classes from a hidden plane, 4 % of them wrong."""
    draws = np.random.default_rng(seed)
    chance = 1.0 / (np.arange(dim) + 12.0) ** 0.95
    lengths = np.clip(draws.lognormal(np.log(filled * 1.07) - 0.245, 0.7, count), 4, 8 * filled).astype(np.int64)
    of = np.repeat(np.arange(count), lengths)
    columns = np.searchsorted(np.cumsum(chance / chance.sum()), draws.random(len(of)), side="right").clip(0, dim - 1)
    both, times = np.unique(of * dim + columns, return_counts=True)
    of, columns = both // dim, both % dim
    values = (1.0 + np.log(times)) * np.log(count / (1.0 + np.bincount(columns, minlength=dim)))[columns]
    values /= np.sqrt(np.bincount(of, values * values, minlength=count))[of]
    plane = draws.normal(size=dim) * (draws.random(dim) < 0.5) * (np.arange(dim) < max(20, dim // 12))
    scores = np.bincount(of, values * plane[columns], minlength=count)
    second = (scores > np.quantile(scores, 0.53)) ^ (draws.random(count) < 0.04)
    names = draws.permutation(dim)[columns]
    order = np.lexsort((names, of))
    start = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=count))])
    rows = Rows(start, names[order].astype(np.uint32), values[order].astype(np.float32),
                np.concatenate([[0], np.cumsum(second)]), np.zeros(int(second.sum()), np.int32))  # fmt: skip
    return Sparse(rows, Labels((-1, 1)), dim, int(np.diff(start).max()))


def apart(count: int, filled: int, seed: int) -> Sparse:
    """Examples of which no two have a coordinate in common."""
    draws = np.random.default_rng(seed)
    lengths = draws.integers(1, 2 * filled, count)
    start = np.concatenate([[0], np.cumsum(lengths)])
    names = draws.permutation(int(start[-1])).astype(np.uint32)
    for row in range(count):
        names[start[row] : start[row + 1]].sort()
    second = draws.random(count) < 0.5
    rows = Rows(start, names, draws.normal(size=len(names)).astype(np.float32),
                np.concatenate([[0], np.cumsum(second)]), np.zeros(int(second.sum()), np.int32))  # fmt: skip
    return Sparse(rows, Labels((-1, 1)), len(names), int(lengths.max()))


def write(path: Path, examples: Sparse) -> Path:
    """As a file of libsvm's form, its coordinates from 1."""
    rows, lines = examples.rows, []
    for row in range(examples.count):
        span = slice(int(rows.start[row]), int(rows.start[row + 1]))
        pairs = zip(rows.columns[span].tolist(), rows.value[span].tolist(), strict=True)
        label = examples.labels.classes[int(rows.label_start[row + 1] > rows.label_start[row])]
        lines.append(f"{label} {' '.join(f'{at + 1}:{value!r}' for at, value in pairs)}\n")
    path.write_text("".join(lines))
    return path
