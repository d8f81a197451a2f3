"""What a margin costs, and its slope: of hinge, logistic loss and squared hinge, compiled."""

from __future__ import annotations

import math
from enum import IntEnum

from pipeline.training.descent.compiled import inlined


class Loss(IntEnum):
    """By the number that compiled loops know it by."""

    HINGE = 0
    LOGISTIC = 1
    SQUARED_HINGE = 2


LOSSES = {"hinge": Loss.HINGE, "logistic": Loss.LOGISTIC, "squared-hinge": Loss.SQUARED_HINGE}
"""By the name of the command line."""


@inlined
def cost(loss: int, margin: float) -> float:
    """margin: label (-1 or 1) times score.  max(0, 1 - m); ln(1 + exp(-m)); max(0, 1 - m)^2."""
    if loss == 1:
        return math.log1p(math.exp(-margin)) if margin > 0.0 else math.log1p(math.exp(margin)) - margin
    short = max(0.0, 1.0 - margin)
    return short * short if loss == 2 else short


@inlined
def pull(loss: int, margin: float) -> float:
    """Minus the derivative of `cost` by the margin; 0 where the example pulls at nothing."""
    if loss == 1:
        if margin > 0.0:
            small = math.exp(-margin)
            return small / (1.0 + small)
        return 1.0 / (1.0 + math.exp(margin))
    if margin >= 1.0:
        return 0.0
    return 2.0 * (1.0 - margin) if loss == 2 else 1.0
