"""A round of a training whose state stands in one place: others compute shards of it, and keep nothing.

With one local step they give gradients, and the solver updates: the same as an exchange, to the bit.  With more, every
shard trains for itself from the same weights and history, and both are averaged by examples.  That is another
algorithm; it depends on the number of shards and of steps, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.training import tree

Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class Round:
    """Where a training is as a round begins.

    number: of the next pass.  step: of the rate.  draws: the state of its random numbers.  steps: local ones; 0: the
    gradients of one iteration are wanted.  weights, history: float32, in the solver's order.
    """

    iteration: int
    step: int
    number: int
    draws: bytes
    steps: int
    weights: tuple[Float32s, ...]
    history: tuple[Float32s, ...] = ()


class Rounds(Protocol):
    """Who computes rounds.  local_steps: of one."""

    local_steps: int

    def compute(self, one: Round) -> tuple[tree.Arrays, list[bytes]]:
        """The sum over all shards by the tree, and what was told of each block, in order.

        Of gradients; or, with local steps, of weights and history times the examples of a step, and then their number.
        """


def averaged(total: Sequence[Float32s]) -> list[Float32s]:
    """Weights and history, of what rounds with local steps sum."""
    *values, count = total
    return [value / count[0] for value in values]
