"""What a data layer gives to a net: batches by their number."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.nets.graph.lowered import Shape

Batch = dict[str, NDArray[np.float32]]
"""The values of each top of a data layer, float32, by the top's name."""


class Source(Protocol):
    """One data layer of a net in one phase.

    layer: its name.  shapes: of each top, for one batch.  count: its examples; 0 where they never end.
    """

    layer: str
    shapes: dict[str, Shape]
    count: int

    def batch(self, number: int) -> Batch:
        """The batch of this number, from 0 on.  The same one each time, from any thread, in any order.

        Raises FormatError for an example that is damaged, with its key.
        """

    def keys(self, number: int) -> list[str]:
        """The keys (or paths) of the examples of that batch, in order: to name one that makes trouble."""
