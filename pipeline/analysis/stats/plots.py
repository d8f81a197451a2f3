"""Stats as pictures: the values, each dimension, the norms; two runs one over the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.analysis.stats.chart import Series, draw
from pipeline.analysis.stats.collecting import Stats
from pipeline.stores.local import typed

Values = npt.NDArray[np.float64]
_BINS = 101
"""Odd, so that what is all but one value is one bar."""


def plot(folder: Path, runs: Sequence[tuple[str, Stats]]) -> list[Path]:
    """Writes values.png, means.png, nonzero.png and norms.png; their paths.  runs: one or two, with their names."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{name}.png" for name in ("values", "means", "nonzero", "norms")]
        _values(paths[0], runs)
        title = "Mean of each dimension"
        draw(paths[1], title, "dimension", "mean", [Series(name, stats.mean) for name, stats in runs])
        shares = [Series(name, stats.nonzero / max(1, stats.finite) * 100) for name, stats in runs]
        draw(paths[2], "Rows in which a dimension is not zero", "dimension", "per cent of the rows", shares)
        _norms(paths[3], runs)
    except OSError as error:
        raise typed(error, folder) from error
    return paths


def _values(path: Path, runs: Sequence[tuple[str, Stats]]) -> None:
    """Zeros, often most of the values, are said in the title: as a bar they would hide the rest."""
    ends = np.array([stats.buckets.quantiles([0.0005, 0.9995]) for _, stats in runs])
    edges = _edges(float(ends[:, 0].min()), float(ends[:, 1].max()))
    series = []
    for name, stats in runs:
        zeros = stats.finite * stats.dim - int(stats.nonzero.sum())
        counts = stats.buckets.histogram(edges)
        if edges[0] <= 0 <= edges[-1]:
            counts[min(_BINS - 1, int(np.searchsorted(edges, 0.0, side="right")) - 1)] -= zeros
        series.append(Series(name, counts / max(1, stats.buckets.total) * 100, edges))
    zero = ", ".join(f"{(1 - stats.nonzero_share) * 100:.1f}%" for _, stats in runs)
    draw(path, f"Values that are not zero (zero: {zero})", "value", "per cent of all values", series)


def _norms(path: Path, runs: Sequence[tuple[str, Stats]]) -> None:
    both = np.concatenate([stats.norms.sample for _, stats in runs])
    edges = _edges(float(both.min(initial=np.inf)), float(both.max(initial=-np.inf)))
    series = [
        Series(name, np.histogram(s.norms.sample, edges)[0] / max(1, len(s.norms.sample)) * 100, edges)
        for name, s in runs
    ]
    draw(path, "Norms", "Euclidean length of a row", "per cent of the rows", series)


def _edges(low: float, high: float) -> Values:
    """Bins over a span; a span that is next to nothing is widened, so that rounding does not look like a shape."""
    if not low <= high:
        low, high = 0.0, 1.0
    if high - low < 1e-3 * max(1.0, abs(high)):
        low, high = low - 0.01 * max(1.0, abs(low)), high + 0.01 * max(1.0, abs(high))
    return np.linspace(low, high, _BINS + 1)
