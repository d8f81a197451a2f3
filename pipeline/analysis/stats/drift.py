"""How far two runs are apart: four measures, each 0 for equal runs, and the greatest of them to be judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.analysis.stats.collecting import Stats
from pipeline.errors import FormatError

Values = npt.NDArray[np.float64]
BINS = 20
MAX_DRIFT = 0.25
"""A population stability index beyond this is by convention a population that has changed."""
_EMPTY = 1e-6
_LITTLE = 1e-12


@dataclass(frozen=True)
class Drift:
    """From one run (before) to another (after)."""

    psi: float
    """Population stability index of the values, over twenty bins of equal share before."""
    jensen_shannon: float
    """Divergence of the same two histograms, base 2: 0 to 1.  Told, not judged: it says what psi says."""
    shift: float
    """Root mean square, over the dimensions, of how far the mean moved in standard deviations of before."""
    shifts: Values
    """(dim,): of each dimension, signed."""
    apart: float
    """1 less the cosine between the two mean vectors."""
    common: int
    """Items of both samples."""
    moved: float
    """1 less the mean cosine between the two vectors of a common item; 0 where there is none."""
    moved_most: float
    """1 less the 1st percentile of these cosines."""

    @property
    def greatest(self) -> float:
        """What is judged."""
        return max(self.psi, self.shift, self.apart, self.moved)


def drift(before: Stats, after: Stats) -> Drift:
    """Raises FormatError when the two have vectors of different lengths."""
    if before.dim != after.dim:
        what = f"{before.dim} and {after.dim} values a row"
        raise FormatError("these two runs cannot be compared", what, "they are of two nets")
    one, other = _shares(before, after)
    deviation = np.where(before.deviation > _LITTLE, before.deviation, np.nan)
    moved = after.mean - before.mean
    # A dimension that was constant has no deviation to count in: that of all values stands in.
    typical = float(np.sqrt(np.mean(before.deviation**2))) or 1.0
    shifts = np.where(np.isnan(deviation), moved / typical, moved / np.nan_to_num(deviation, nan=1.0))
    mine, theirs = before.sample.common(after.sample)
    cosines = _cosines(mine.astype(np.float64), theirs.astype(np.float64))
    return Drift(
        psi=float(((other - one) * np.log(other / one)).sum()),
        jensen_shannon=_jensen_shannon(one, other),
        shift=float(np.sqrt(np.mean(shifts**2))),
        shifts=shifts,
        apart=_less_than_one(_cosines(before.mean[None], after.mean[None])[0]),
        common=len(cosines),
        moved=_less_than_one(cosines.mean()) if len(cosines) else 0.0,
        moved_most=_less_than_one(np.percentile(cosines, 1)) if len(cosines) else 0.0,
    )


def _shares(before: Stats, after: Stats) -> tuple[Values, Values]:
    """The two histograms over bins of equal share before; zeros, often most of them, have a bin of their own."""
    edges = np.unique(before.buckets.quantiles(np.linspace(0, 1, BINS + 1)))
    around_zero = np.array([-_LITTLE, _LITTLE])
    edges = np.unique(np.concatenate([[-np.inf], edges[1:-1], around_zero, [np.inf]]))
    found = [stats.buckets.histogram(edges) / max(1, stats.buckets.total) for stats in (before, after)]
    one, other = (np.maximum(shares, _EMPTY) for shares in found)
    return one / one.sum(), other / other.sum()


def _jensen_shannon(one: Values, other: Values) -> float:
    middle = (one + other) / 2
    return float(((one * np.log2(one / middle)).sum() + (other * np.log2(other / middle)).sum()) / 2)


def _less_than_one(cosine: float) -> float:
    """1 - cosine, without the last digits' rounding: equal runs give 0."""
    return round(1 - float(cosine), 9)


def _cosines(one: Values, other: Values) -> Values:
    """Row by row; two rows of zeros are alike, a row of zeros and another are not."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    both_zero = ~one.any(1) & ~other.any(1)
    products = np.einsum("nd,nd->n", one, other)
    return np.clip(np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), both_zero), -1, 1)
