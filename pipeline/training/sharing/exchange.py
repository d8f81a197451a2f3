"""What processes that train one net together ask of each other: sums of their gradients, and a few words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.training import tree

Float32s = NDArray[np.float32]


class Exchange(Protocol):
    """The processes of one training as one of them sees it.  rank: its number; 0 writes and says what there is."""

    rank: int
    workers: int

    def block(self, shards: int) -> range:
        """The shards that this process computes."""

    def room(self, shapes: Sequence[tuple[int, ...]]) -> Sequence[Float32s] | None:
        """Arrays of these shapes, the same each time, from which `sum` takes gradients the soonest; None: any are.

        All processes call it with the same shapes.  What stands there is theirs from `sum` to its end.
        """

    def sum(self, gradients: Sequence[Float32s], told: bytes) -> list[bytes]:
        """Sums the gradients of all blocks in place, by the tree of `training/tree.py`; what each process told.

        gradients: C order, of the same shapes everywhere.  All processes call it at the same point of the training.
        Raises TemporaryError, which names a process that is gone or silent; what another process has told by `fail`.
        """

    def alive(self) -> None:
        """This process gets on: to be called more often than the others lose patience."""

    def fail(self, error: PipelineError) -> None:
        """Tells the others why this process ends, so that they end with the same words."""

    def close(self) -> None:
        """Ends the connections."""


class Alone:
    """One process, which computes every shard."""

    rank, workers = 0, 1

    def block(self, shards: int) -> range:
        return tree.blocks(shards, 1)[0]

    def room(self, shapes: Sequence[tuple[int, ...]]) -> None:
        return None

    def sum(self, gradients: Sequence[Float32s], told: bytes) -> list[bytes]:
        return [told]

    def alive(self) -> None:
        pass

    def fail(self, error: PipelineError) -> None:
        pass

    def close(self) -> None:
        pass
