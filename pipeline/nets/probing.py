"""A net of which its graph does not tell: one image alone and among others, in several places, twice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.nets.verdict import OWN, Verdict

Floats = NDArray[np.float32]
_ROUNDING = {"fp32": 2e-6}
"""Of the largest number.  Engines on CPUs give equal bits in fp32; a kernel that rounds otherwise in another place of
the batch is not what is looked for, and what reads another image is farther off."""
_HALF = 2e-2


def probe(run: Callable[[Floats], Floats], images: Floats, batch: int, precision: str) -> Verdict:
    """What passes of `batch` images tell.

    run: (batch, ...) images -> (batch, ...) rows.  images: at least three, of the numbers that the net is fed.
    A batch of 1 has no neighbours: then only chance, and what one pass leaves to the next, can be seen.
    """
    wanted, other, third = images[:3]
    by_itself = _row(run, wanted, 0, np.zeros_like(images[:1]), batch)
    for place, neighbours in ((batch // 2, images[1:]), (batch - 1, other[None]), (0, 4 * third[None] - other[None])):
        among = _row(run, wanted, place, neighbours, batch)
        again = _row(run, wanted, 0, np.zeros_like(images[:1]), batch)
        if not _same(by_itself, again, precision):
            return Verdict("random", "the same image got two different features in two passes")
        if not _same(by_itself, among, precision):
            return Verdict("mixed", f"an image got another feature at place {place} of {batch}, among other images")
    return OWN


def _row(run: Callable[[Floats], Floats], image: Floats, place: int, neighbours: Floats, batch: int) -> Floats:
    filled = np.concatenate([neighbours] * -(-batch // len(neighbours)))[:batch].astype(np.float32)
    filled[place] = image
    return np.asarray(run(filled)[place], np.float32)


def _same(one: Floats, other: Floats, precision: str) -> bool:
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return False
    held = np.isfinite(one)
    if not held.any():
        return True
    far = float(np.abs(one[held].astype(np.float64) - other[held]).max())
    return far <= _ROUNDING.get(precision, _HALF) * float(np.abs(one[held]).max())
