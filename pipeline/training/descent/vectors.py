"""The vectors of a model while it is trained: one that all workers share, or a copy for each, averaged by a tree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.training.descent.compiled import PAD
from pipeline.training.descent.memory import Memory
from pipeline.training.descent.values import LOCKS, Model, Numbers


class Vectors:
    """What a pass goes over: `models`, one a worker."""

    def __init__(self, memory: Memory, sizes: tuple[int, int, int], workers: int, copies: bool) -> None:
        """sizes: of the weights, the biases and the shrinks.  copies: each worker has its own weights and biases."""
        weights, biases, shrinks = sizes
        shrink, locks = memory.empty(shrinks, "f4"), memory.empty((LOCKS + 1) * PAD, "i4")
        locks[:] = 0
        own = [(memory.empty(weights, "f4"), memory.empty(biases, "f4")) for _ in range(workers if copies else 1)]
        for one in own:
            one[0][:], one[1][:] = 0.0, 0.0
        self._own = own
        self.models = [Model(*own[number if copies else 0], shrink, locks) for number in range(workers)]

    @property
    def model(self) -> Model:
        """Of the first worker: after `average`, of all."""
        return self.models[0]

    def average(self) -> None:
        """The copies become their mean, by the same sums in the same order each time."""
        if len(self._own) > 1:
            for kind in (0, 1):
                mean = tree([one[kind] for one in self._own]) / np.float32(len(self._own))
                for one in self._own:
                    one[kind][:] = mean

    def put(self, weights: Numbers, bias: Numbers) -> None:
        """All workers go on from here."""
        for one in self._own:
            one[0][:], one[1][:] = weights, bias


def tree(numbers: Sequence[Numbers]) -> Numbers:
    """The sum of arrays: neighbours first, then their sums, and so on."""
    if len(numbers) == 1:
        return numbers[0]
    half = 1 << ((len(numbers) - 1).bit_length() - 1)
    found: Numbers = tree(numbers[:half]) + tree(numbers[half:])
    return found
