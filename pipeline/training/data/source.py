"""What a data layer gives to a net: batches by their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.nets.graph.lowered import Shape
from pipeline.training.data.transform import Transform

Batch = dict[str, NDArray[np.float32]]
"""The values of each top of a data layer, float32, by the top's name."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What a net takes as labels: whole numbers from 0 to classes - 1, and the ignored one."""

    classes: int
    ignored: int | None = None

    def fits(self, value: float) -> bool:
        return value == int(value) and (0 <= value < self.classes or value == self.ignored)

    def misfit(self, values: NDArray[np.float32]) -> float | None:
        """The first of many values that does not fit; None: all do."""
        whole = (values >= 0) & (values < self.classes)
        if self.ignored is not None:
            whole |= values == self.ignored
        whole &= np.floor(values) == values
        return None if whole.all() else float(values.reshape(-1)[int(np.argmin(whole))])


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with an example: its key or path, and a sentence."""

    key: str
    says: str


class Source(Protocol):
    """One data layer of a net in one phase.

    layer: its name.  shapes: of each top, for one batch.  count: its examples; 0 where they never end.
    in_order: its batches are asked for once each, in order, by the thread that trains: they draw from the stream of the
    whole training, or a program feeds them.
    transform: what it does to each image; None: it gives values as they are.
    """

    layer: str
    shapes: dict[str, Shape]
    count: int
    in_order: bool
    transform: Transform | None

    def batch(self, number: int) -> Batch:
        """The batch of this number, from 0 on.  The same one each time, from any thread, in any order.

        Raises FormatError for an example that is damaged, with its key.
        """

    def keys(self, number: int) -> list[str]:
        """The keys (or paths) of the examples of that batch, in order: to name one that makes trouble."""

    def examine(self, labels: Mapping[str, Labels], examples: range) -> Iterator[Trouble]:
        """Reads each of these examples (of `count`) once.  labels: what the net takes, by top."""

    def close(self) -> None:
        """Closes its files."""
