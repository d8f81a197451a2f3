"""BatchNorm's moving sums, kept apart from a pass: who has several batches decides in which order they are taken up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.nets.graph.lowered import Slot
from pipeline.training.network import Network, Pass

Sums = dict[Slot, NDArray[np.float32]]
"""By learned blob: mean, variance and weight that one batch adds to a BatchNorm layer's sums."""


def apart(net: Network, run: Callable[[], Pass]) -> tuple[Pass, Sums]:
    """Runs a pass of the net that leaves its moving sums as they are, and what the pass would have added to them."""
    kept = {slot: net.weights(slot) for one in net.moving for slot in one.blobs}
    try:
        for slot, values in kept.items():
            net.load(slot, np.zeros_like(values))
        result = run()
        return result, {slot: net.weights(slot) for slot in kept}
    finally:
        for slot, values in kept.items():
            net.load(slot, values)


def take_up(net: Network, sums: Sums) -> None:
    """Moves the net's sums by those of one batch, as a pass does: fraction * sum + what the batch has."""
    done: set[Slot] = set()
    for one in net.moving:
        for slot in one.blobs:
            if slot not in done:
                net.load(slot, net.weights(slot) * np.float32(one.fraction) + sums[slot])
                done.add(slot)
