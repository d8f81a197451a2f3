"""Every value counted, in one pass: a value's bucket is the upper half of its float32 (bfloat16, cut towards zero).

65,536 counters tell any percentile and any histogram; a bucket is 1/128 of its value wide, so what is told is within
0.4 per cent of the value itself.  Counters of several files or hosts add up.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.codec.shards import Matrix

Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

_NEGATIVE = np.arange(0xFF7F, 0x7FFF, -1)
_POSITIVE = np.arange(0x0000, 0x7F80)
_ORDER = np.concatenate([_NEGATIVE, _POSITIVE])
"""Finite buckets from the least to the greatest value."""


def _values(buckets: npt.NDArray[np.int64]) -> Values:
    return (buckets.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


_MIDDLES = np.concatenate(
    [
        -(_values(_NEGATIVE - 0x8000) + _values(_NEGATIVE - 0x7FFF)) / 2,
        (_values(_POSITIVE) + _values(_POSITIVE + 1)) / 2,
    ]
)
_MIDDLES[~np.isfinite(_MIDDLES)] = np.copysign(np.finfo(np.float32).max, _MIDDLES[~np.isfinite(_MIDDLES)])
_MIDDLES[[len(_NEGATIVE) - 1, len(_NEGATIVE)]] = 0.0  # zero, and what is too small to matter
_GREATEST = float(np.finfo(np.float32).max)
_ENDS = np.concatenate([[-_GREATEST], -_values(_NEGATIVE - 0x8000), np.minimum(_values(_POSITIVE + 1), _GREATEST)])
"""Where each bucket ends; the least one begins at the first."""


@dataclass
class Buckets:
    """Counts of finite values."""

    counts: Counts = field(default_factory=lambda: np.zeros(65536, np.int64))

    def add(self, matrix: Matrix) -> None:
        """Counts each value of a matrix; any shape."""
        upper = np.ascontiguousarray(matrix, np.float32).view(np.uint16).reshape(-1, 2)[:, 1]
        self.counts += np.bincount(upper, minlength=65536)

    @property
    def total(self) -> int:
        return int(self.counts[_ORDER].sum())

    def quantiles(self, shares: npt.ArrayLike) -> Values:
        """The value below which each share (0 to 1) of the values lies; zeros where there is no value."""
        total = np.cumsum(self.counts[_ORDER])
        if not len(total) or not total[-1]:
            return np.zeros(np.shape(shares))
        places = np.searchsorted(total, np.maximum(np.asarray(shares) * total[-1], 1))
        return np.asarray(_MIDDLES[np.minimum(places, len(_MIDDLES) - 1)])

    def histogram(self, edges: Values) -> Counts:
        """Counts of values between edges (ascending; infinite ones take the rest); a bucket in proportion."""
        below = np.interp(edges, _ENDS, np.concatenate([[0], np.cumsum(self.counts[_ORDER])]))
        return np.asarray(np.diff(np.rint(below)), np.int64)
