"""The mean of the last losses that a log shows: Solver::UpdateSmoothedLoss, in float32."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

F = np.float32


@dataclass
class Smoothing:
    """`mean` of the last `average` losses.  since: the iteration at which the window began."""

    average: int
    losses: list[float] = field(default_factory=list)
    mean: float = 0.0
    since: int = 0

    def begin(self, iteration: int) -> None:
        """Forgets all losses."""
        self.losses, self.mean, self.since = [], 0.0, iteration

    def add(self, loss: float, iteration: int) -> None:
        if len(self.losses) < self.average:
            self.losses.append(loss)
            size = len(self.losses)
            self.mean = float((F(self.mean) * F(size - 1) + F(loss)) / F(size))
        else:
            at = (iteration - self.since) % self.average
            self.mean = float(F(self.mean) + (F(loss) - F(self.losses[at])) / F(self.average))
            self.losses[at] = loss
